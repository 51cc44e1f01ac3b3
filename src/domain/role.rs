//! Who may do what through the management API.
//!
//! The one place where a role's rights are written down; handlers ask for a proof of a right and never for a role. The
//! table is that of the API's description.

use std::fmt;

/// What a person or a script is in an organization, from most to least.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Everything, in every organization.
    PlatformAdmin,
    /// Everything in the organization, members and roles included.
    Owner,
    /// Keys, config, providers, limits, budgets, webhooks, teams; not owners, not the organization itself.
    Admin,
    /// Keys, limits and budgets inside the team.
    TeamAdmin,
    /// Own keys and own usage.
    Member,
    /// Reads everything in the organization except secrets and payloads.
    Viewer,
}

/// Something that can be done through the management API.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Right {
    /// See the organization's gateway config and its versions, and ask where a request would go.
    ReadConfig,
    /// Change the organization's gateway config.
    WriteConfig,
    /// See the organization's providers and how they are doing.
    ReadProviders,
    /// See what was done in the organization, and by whom.
    ReadAudit,
    /// See keys, as far as `authority` reaches.
    ReadKeys,
    /// Create, change, rotate and revoke keys, as far as `authority` reaches.
    WriteKeys,
    /// See rate limits and budgets, as far as `authority` reaches.
    ReadLimits,
    /// Create, change and delete rate limits and budgets, as far as `authority` reaches.
    WriteLimits,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::PlatformAdmin,
        Self::Owner,
        Self::Admin,
        Self::TeamAdmin,
        Self::Member,
        Self::Viewer,
    ];

    /// The text form, in tokens and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PlatformAdmin => "platform_admin",
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::TeamAdmin => "team_admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
        }
    }

    /// The role with a text form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether the role has a right in its own organization.
    pub fn may(self, right: Right) -> bool {
        match right {
            Right::WriteConfig => matches!(self, Self::PlatformAdmin | Self::Owner | Self::Admin),
            // The config names other teams' rules, and providers' health is the whole organization's.
            Right::ReadConfig | Right::ReadProviders | Right::ReadAudit => {
                matches!(self, Self::PlatformAdmin | Self::Owner | Self::Admin | Self::Viewer)
            }
            Right::ReadKeys | Right::ReadLimits => true,
            Right::WriteKeys => self != Self::Viewer,
            // A member's limits are set by others: whoever may delete a limit has none.
            Right::WriteLimits => !matches!(self, Self::Viewer | Self::Member),
        }
    }

    /// Whether the role's rights hold in every organization.
    pub fn everywhere(self) -> bool {
        self == Self::PlatformAdmin
    }
}

impl Right {
    /// Every right.
    pub const ALL: [Self; 8] = [
        Self::ReadConfig,
        Self::WriteConfig,
        Self::ReadProviders,
        Self::ReadAudit,
        Self::ReadKeys,
        Self::WriteKeys,
        Self::ReadLimits,
        Self::WriteLimits,
    ];

    /// What it is, for whoever lacks it: "this needs the right to …".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadConfig => "read the gateway config",
            Self::WriteConfig => "change the gateway config",
            Self::ReadProviders => "read providers",
            Self::ReadAudit => "read the audit log",
            Self::ReadKeys => "read keys",
            Self::WriteKeys => "change keys",
            Self::ReadLimits => "read rate limits and budgets",
            Self::WriteLimits => "change rate limits and budgets",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_that_of_the_description() {
        use Role::{Admin, Member, Owner, PlatformAdmin, TeamAdmin, Viewer};
        for (right, allowed) in [
            (Right::ReadConfig, &[PlatformAdmin, Owner, Admin, Viewer][..]),
            (Right::WriteConfig, &[PlatformAdmin, Owner, Admin]),
            (Right::ReadProviders, &[PlatformAdmin, Owner, Admin, Viewer]),
            (Right::ReadAudit, &[PlatformAdmin, Owner, Admin, Viewer]),
            (
                Right::ReadKeys,
                &[PlatformAdmin, Owner, Admin, TeamAdmin, Member, Viewer],
            ),
            (Right::WriteKeys, &[PlatformAdmin, Owner, Admin, TeamAdmin, Member]),
            (
                Right::ReadLimits,
                &[PlatformAdmin, Owner, Admin, TeamAdmin, Member, Viewer],
            ),
            (Right::WriteLimits, &[PlatformAdmin, Owner, Admin, TeamAdmin]),
        ] {
            for role in [PlatformAdmin, Owner, Admin, TeamAdmin, Member, Viewer] {
                assert_eq!(role.may(right), allowed.contains(&role), "{role} {right:?}");
            }
        }
    }

    #[test]
    fn every_role_is_found_by_its_name() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
    }
}
