//! The scopes of keys. Pure.

use crate::db::text_enum;

text_enum! {
    /// The permissions of a key.
    pub enum Scope {
        /// See entities, jobs and tasks.
        EntitiesRead = "entities:read",
        /// Create and change entities.
        EntitiesWrite = "entities:write",
        /// Offboard single entities.
        EntitiesOffboard = "entities:offboard",
        /// Delete many entities.
        EntitiesDelete = "entities:delete",
        /// Delete many entities so that nothing but a tombstone is left.
        EntitiesDeleteHard = "entities:delete_hard",
        /// Put entities on hold.
        HoldsPlace = "holds:place",
        /// End holds.
        HoldsRelease = "holds:release",
        /// See portfolios.
        PortfoliosRead = "portfolios:read",
        /// Change portfolios and their members.
        PortfoliosWrite = "portfolios:write",
        /// Check the consistency of the data.
        ConsistencyCheck = "consistency:check",
        /// See what checks have found.
        ConsistencyRead = "consistency:read",
        /// See the removal policy.
        PoliciesRead = "policies:read",
        /// Change the removal policy.
        PoliciesWrite = "policies:write",
        /// See what happened.
        EventsRead = "events:read",
        /// See keys.
        KeysRead = "keys:read",
        /// Manage keys.
        KeysWrite = "keys:write",
        /// Everything.
        Admin = "admin",
    }
}

impl Scope {
    /// What a key may do by it, for people.
    pub fn allows(self) -> &'static str {
        match self {
            Scope::EntitiesRead => {
                "see entities with what hangs on them, attribute indexes, offboardings and tasks"
            }
            Scope::EntitiesWrite => "create, import and change entities and what hangs on them",
            Scope::EntitiesOffboard => "offboard single entities, and cancel that",
            Scope::EntitiesDelete => "start bulk deletes and control tasks",
            Scope::EntitiesDeleteHard => "do so where nothing but a tombstone is left",
            Scope::HoldsPlace => "put entities on hold",
            Scope::HoldsRelease => "end holds; those placed by a key with `admin` need `admin`",
            Scope::PortfoliosRead => "see portfolios",
            Scope::PortfoliosWrite => {
                "create, change and delete portfolios, and change their members"
            }
            Scope::ConsistencyCheck => "start consistency checks, with or without repairs",
            Scope::ConsistencyRead => "see what they have found",
            Scope::PoliciesRead => "see the removal policy",
            Scope::PoliciesWrite => "change the removal policy",
            Scope::EventsRead => {
                "see events, with no more of their data than the key could read elsewhere"
            }
            Scope::KeysRead => "see keys, without their secrets",
            Scope::KeysWrite => {
                "create, change and rotate keys that have no scope that it lacks, and revoke any key"
            }
            Scope::Admin => "everything, also what has no scope of its own",
        }
    }

    /// Returns whether it allows to read alone.
    pub fn only_reads(self) -> bool {
        self.as_str().ends_with(":read")
    }
}
