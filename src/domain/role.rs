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
    /// See and end one's own session, and change one's own password.
    OwnAccount,
    /// See the organization itself.
    ReadOrganization,
    /// Change the organization itself.
    WriteOrganization,
    /// Create and delete organizations, and say what they may have of what is shared.
    ManageOrganizations,
    /// See teams.
    ReadTeams,
    /// Create, change and delete teams.
    WriteTeams,
    /// See users.
    ReadUsers,
    /// Create, change and delete users, up to what one is.
    WriteUsers,
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
            Right::WriteConfig | Right::WriteTeams | Right::WriteUsers => {
                matches!(self, Self::PlatformAdmin | Self::Owner | Self::Admin)
            }
            Right::OwnAccount => true,
            Right::WriteOrganization => matches!(self, Self::PlatformAdmin | Self::Owner),
            Right::ManageOrganizations => self == Self::PlatformAdmin,
            // A team admin's are those of their team.
            Right::ReadTeams | Right::ReadUsers => self != Self::Member,
            // The config names other teams' rules, and providers' health is the whole organization's.
            Right::ReadConfig | Right::ReadProviders | Right::ReadAudit | Right::ReadOrganization => {
                matches!(self, Self::PlatformAdmin | Self::Owner | Self::Admin | Self::Viewer)
            }
        }
    }

    /// Whether whoever has the role may give another one to somebody, or change somebody who has it: nobody makes of
    /// anybody more than they are.
    pub fn may_make(self, other: Self) -> bool {
        match self {
            Self::PlatformAdmin => true,
            Self::Owner => other != Self::PlatformAdmin,
            Self::Admin => !matches!(other, Self::PlatformAdmin | Self::Owner),
            Self::TeamAdmin | Self::Member | Self::Viewer => false,
        }
    }

    /// Whether the role's rights hold in every organization.
    pub fn everywhere(self) -> bool {
        self == Self::PlatformAdmin
    }
}

impl Right {
    /// Every right.
    pub const ALL: [Self; 12] = [
        Self::ReadConfig,
        Self::WriteConfig,
        Self::ReadProviders,
        Self::ReadAudit,
        Self::OwnAccount,
        Self::ReadOrganization,
        Self::WriteOrganization,
        Self::ManageOrganizations,
        Self::ReadTeams,
        Self::WriteTeams,
        Self::ReadUsers,
        Self::WriteUsers,
    ];

    /// What it is, for whoever lacks it: "this needs the right to …".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadConfig => "read the gateway config",
            Self::WriteConfig => "change the gateway config",
            Self::ReadProviders => "read providers",
            Self::ReadAudit => "read the audit log",
            Self::OwnAccount => "manage one's own account",
            Self::ReadOrganization => "read the organization",
            Self::WriteOrganization => "change the organization",
            Self::ManageOrganizations => "manage organizations",
            Self::ReadTeams => "read teams",
            Self::WriteTeams => "change teams",
            Self::ReadUsers => "read users",
            Self::WriteUsers => "change users",
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
            (Right::OwnAccount, &Role::ALL),
            (Right::ReadOrganization, &[PlatformAdmin, Owner, Admin, Viewer]),
            (Right::WriteOrganization, &[PlatformAdmin, Owner]),
            (Right::ManageOrganizations, &[PlatformAdmin]),
            (Right::ReadTeams, &[PlatformAdmin, Owner, Admin, TeamAdmin, Viewer]),
            (Right::WriteTeams, &[PlatformAdmin, Owner, Admin]),
            (Right::ReadUsers, &[PlatformAdmin, Owner, Admin, TeamAdmin, Viewer]),
            (Right::WriteUsers, &[PlatformAdmin, Owner, Admin]),
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
