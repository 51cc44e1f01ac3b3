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

/// Defines the rights, each in one place: what it is, what to call it, and which roles have it.
macro_rules! rights {
    ($($(#[$doc:meta])* $right:ident: $words:literal, $($role:ident)|*;)+) => {
        /// Something that can be done through the management API.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Right {
            $($(#[$doc])* $right,)+
        }

        impl Right {
            /// Every right.
            pub const ALL: &[Self] = &[$(Self::$right),+];

            /// What it is, for whoever lacks it: "this needs the right to …".
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$right => $words,)+
                }
            }

            /// The roles that have it, besides the platform's admins, who have every right.
            fn roles(self) -> &'static [Role] {
                match self {
                    $(Self::$right => &[$(Role::$role),*],)+
                }
            }
        }
    };
}

rights! {
    /// See the organization's gateway config and its versions, and ask where a request would go. It names other teams'
    /// rules.
    ReadConfig: "read the gateway config", Owner | Admin | Viewer;
    /// Change the organization's gateway config.
    WriteConfig: "change the gateway config", Owner | Admin;
    /// See the organization's providers and how they are doing.
    ReadProviders: "read providers", Owner | Admin | Viewer;
    /// See figures of past requests, as far as the role sees requests.
    ReadUsage: "read usage", Owner | Admin | TeamAdmin | Member | Viewer;
    /// See single requests, as far as the role sees requests.
    ReadLogs: "read the log of requests", Owner | Admin | TeamAdmin | Member | Viewer;
    /// See what was done in the organization, and by whom.
    ReadAudit: "read the audit log", Owner | Admin | Viewer;
    /// See what is done for the organization in the background.
    ReadJobs: "read jobs", Owner | Admin | Viewer;
    /// Let what was given up begin anew.
    RetryJobs: "retry jobs", Owner | Admin;
    /// See the organization's webhooks and what was sent to them, without their secrets.
    ReadWebhooks: "read webhooks", Owner | Admin | Viewer;
    /// Create, change and delete webhooks, and send to them.
    WriteWebhooks: "change webhooks", Owner | Admin;
    /// See keys, as far as `authority` reaches.
    ReadKeys: "read keys", Owner | Admin | TeamAdmin | Member | Viewer;
    /// Create, change, rotate and revoke keys, as far as `authority` reaches.
    WriteKeys: "change keys", Owner | Admin | TeamAdmin | Member;
    /// See rate limits and budgets, as far as `authority` reaches.
    ReadLimits: "read rate limits and budgets", Owner | Admin | TeamAdmin | Member | Viewer;
    /// Create, change and delete rate limits and budgets, as far as `authority` reaches. A member's are set by others:
    /// whoever may delete a limit has none.
    WriteLimits: "change rate limits and budgets", Owner | Admin | TeamAdmin;
    /// See and end one's own session, and change one's own password.
    OwnAccount: "manage one's own account", Owner | Admin | TeamAdmin | Member | Viewer;
    /// See the organization itself.
    ReadOrganization: "read the organization", Owner | Admin | Viewer;
    /// Change the organization itself.
    WriteOrganization: "change the organization", Owner;
    /// Create and delete organizations, and say what they may have of what is shared.
    ManageOrganizations: "manage organizations",;
    /// See teams; a team admin theirs.
    ReadTeams: "read teams", Owner | Admin | TeamAdmin | Viewer;
    /// Create, change and delete teams.
    WriteTeams: "change teams", Owner | Admin;
    /// See users; a team admin those of their team.
    ReadUsers: "read users", Owner | Admin | TeamAdmin | Viewer;
    /// Create, change and delete users, up to what one is.
    WriteUsers: "change users", Owner | Admin;
    /// Store credentials of providers, and test them.
    WriteProviders: "change and test credentials of providers", Owner | Admin;
    /// Charge past requests by other prices.
    Reprice: "re-price past requests", Owner | Admin;
    /// Have requests and usage written into a table in the background.
    Export: "export requests and usage", Owner | Admin;
    /// Read what was asked and answered, where it is kept.
    ReadPayloads: "read payloads of requests", Owner | Admin;
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
        self == Self::PlatformAdmin || right.roles().contains(&self)
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

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_change_something_may_see_it_and_nobody_who_only_looks_may_change_anything() {
        for &right in Right::ALL {
            let words = right.as_str();
            // Everybody has an account of their own, and organizations are the platform's.
            let only_looks = words.starts_with("read ") || right == Right::OwnAccount;
            let owners = Role::Owner.may(right) || right == Right::ManageOrganizations;
            assert!(Role::PlatformAdmin.may(right) && owners, "{words}");
            assert!(only_looks || !Role::Viewer.may(right), "{words}");
        }
        assert!(!Role::Viewer.may(Right::WriteConfig) && Role::Admin.may(Right::WriteConfig));
        assert!(!Role::Member.may(Right::ReadConfig) && !Role::TeamAdmin.may(Right::ReadConfig));
    }

    #[test]
    fn every_role_is_found_by_its_name() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
    }
}
