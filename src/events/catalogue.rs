//! The members of the events of each type: the page of events is made of them, and a test checks written events against them. Pure.

use crate::events::model::EventType;

/// The catalogue of an event type.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The kind of the subject.
    pub subject: &'static str,
    /// The description of the event.
    pub reports: &'static str,
    /// The members of `data` besides `principal_id`, by their names in [`MEMBERS`].
    pub members: &'static [&'static str],
}

/// A member of `data`.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Its type in JSON.
    pub kind: &'static str,
    /// Its description.
    pub reports: &'static str,
}

const fn member(name: &'static str, kind: &'static str, reports: &'static str) -> Member {
    Member { name, kind, reports }
}

/// Every member of `data`.
pub const MEMBERS: &[Member] = &[
    member("principal_id", "UUID", "the principal; in every event"),
    member(
        "version",
        "number",
        "the version of the subject after it; of what was removed, its last version. Not in the events of a chunk of a bulk delete",
    ),
    member(
        "fields",
        "array of texts",
        "the members that changed. Empty if only the rows of an index were repaired; `entity_count` if a check repaired the count of a portfolio",
    ),
    member(
        "dependent",
        "object",
        "the dependent that was put or deleted: `kind`, `id`, and `act`, which is `created`, `replaced` or `deleted`",
    ),
    member("entity_ids", "array of texts", "the entities that joined or left the portfolio"),
    member(
        "offboarding_request_id",
        "UUID",
        "the offboarding request, which is also the removal job",
    ),
    member("execute_after", "time", "when the grace period ends"),
    member(
        "previous_secret_expires_at",
        "time",
        "when the secret that the key had before ends; it may have been at once",
    ),
    member(
        "incarnation",
        "UUID",
        "distinguishes the entity from others that had its id, as its tombstone does",
    ),
    member("code", "text", "why it failed, as `error.code` of the request has it"),
    member("bulk_delete_id", "UUID", "the bulk delete, or the consistency check, that did it"),
    member("mode", "text", "how the bulk delete deletes: `soft` or `hard`"),
    member(
        "status",
        "text",
        "the status of the task after it, in lower case, such as `completed_with_errors`",
    ),
    member("parameters", "object of texts", "`parameters` of the task, without the filter"),
    member(
        "max_objects_per_second",
        "number or null",
        "how many objects the task may take up a second; null if there is no limit",
    ),
    member(
        "error_code",
        "text",
        "why the index could not be built, as the index's `error_code` has it",
    ),
    member(
        "default_grace_period",
        "duration",
        "that of the removal policy after the change, as the policy has it, such as `3600s`",
    ),
    member("max_grace_period", "duration", "the same"),
    member("tombstone_retention", "duration", "the same; not there where it is for ever"),
    member("request_retention", "duration", "the same; not there where it is for ever"),
    member("filter_retention", "duration", "the same; not there where it is as long as the task"),
    member("mail_domains", "array of texts", "that of the removal policy after the change"),
    member("min_grace_period", "duration", "the same as the other grace periods"),
    member(
        "hard_delete",
        "object",
        "what the policy demands of a hard bulk delete after the change, as the policy has it; not there where it is nothing",
    ),
    member("soft_delete", "object", "the same for a soft one"),
];

const fn entity(reports: &'static str, members: &'static [&'static str]) -> About {
    About { subject: "entity", reports, members }
}

const fn portfolio(reports: &'static str, members: &'static [&'static str]) -> About {
    About { subject: "portfolio", reports, members }
}

const fn index(reports: &'static str, members: &'static [&'static str]) -> About {
    About { subject: "attribute", reports, members }
}

const fn key(reports: &'static str, members: &'static [&'static str]) -> About {
    About { subject: "key", reports, members }
}

const fn task(reports: &'static str, members: &'static [&'static str]) -> About {
    About { subject: "bulk delete", reports, members }
}

impl EventType {
    /// The members of the events of this type.
    pub fn about(self) -> About {
        match self {
            EventType::EntityCreated => entity("it was created or imported", &["version"]),
            EventType::EntityUpdated => entity(
                "its type, attributes and so on, or what hangs on it, changed",
                &["version", "fields", "dependent", "bulk_delete_id"],
            ),
            EventType::EntityOnboarded => {
                entity("its onboarding is complete; it is active", &["version"])
            }
            EventType::EntityHeld => entity("it was put on hold", &["version"]),
            EventType::EntityReleased => entity("its hold ended", &["version"]),
            EventType::EntityOffboardingRequested => entity(
                "it is to be offboarded",
                &["version", "offboarding_request_id", "execute_after"],
            ),
            EventType::EntityOffboardingCanceled => entity(
                "its offboarding was canceled; it is active again",
                &["version", "offboarding_request_id", "bulk_delete_id"],
            ),
            EventType::EntityOffboardingFailed => entity(
                "its offboarding could not be done; it is active again",
                &["version", "offboarding_request_id", "code", "bulk_delete_id"],
            ),
            EventType::EntityOffboarded => {
                entity("it was removed", &["version", "offboarding_request_id", "incarnation"])
            }
            EventType::EntityDeleted => {
                entity("a bulk delete removed it", &["bulk_delete_id", "mode"])
            }
            EventType::RemovalPolicyUpdated => About {
                subject: "organisation",
                reports: "its removal policy changed",
                members: &[
                    "default_grace_period",
                    "max_grace_period",
                    "tombstone_retention",
                    "request_retention",
                    "filter_retention",
                    "mail_domains",
                    "min_grace_period",
                    "hard_delete",
                    "soft_delete",
                ],
            },
            EventType::AttributeIndexCreated => index("it was declared as indexed", &[]),
            EventType::AttributeIndexReady => index("its index is in use", &[]),
            EventType::AttributeIndexFailed => {
                index("its index could not be built", &["error_code"])
            }
            EventType::AttributeIndexDeleted => {
                index("its index is used no more, and is being removed", &[])
            }
            EventType::PortfolioCreated => portfolio("it was created", &["version"]),
            EventType::PortfolioUpdated => portfolio(
                "its name or other properties changed",
                &["version", "fields", "bulk_delete_id"],
            ),
            EventType::PortfolioDeleted => portfolio("it was removed", &["version"]),
            EventType::PortfolioEntityAttached => {
                portfolio("it gained members", &["version", "entity_ids"])
            }
            EventType::PortfolioEntityDetached => portfolio(
                "it lost members, because they were detached or removed",
                &["version", "entity_ids", "bulk_delete_id", "mode"],
            ),
            EventType::KeyCreated => key("it was created by a call", &["version"]),
            EventType::KeyUpdated => {
                key("its name, scopes or other fields changed", &["version", "fields"])
            }
            EventType::KeyRotated => {
                key("it has another secret", &["version", "previous_secret_expires_at"])
            }
            EventType::KeyRevoked => key("it was revoked by a call", &["version"]),
            EventType::AccessPolicyUpdated => About {
                subject: "organisation",
                reports: "the networks that its keys may be used from changed",
                members: &["version", "fields"],
            },
            EventType::BulkDeleteScheduled => task("it was asked for", &["parameters"]),
            EventType::BulkDeleteStarted => task("a worker has taken it up", &["status"]),
            EventType::BulkDeleteContinued => task("a worker has taken it up again", &["status"]),
            EventType::BulkDeletePausing => {
                task("it pauses at the end of the chunks in hand", &["status"])
            }
            EventType::BulkDeletePaused => task("it has paused", &["status"]),
            EventType::BulkDeleteResumed => task("it is resumed", &["status"]),
            EventType::BulkDeleteCanceling => {
                task("it stops at the end of the chunks in hand", &["status"])
            }
            EventType::BulkDeleteWaiting => {
                task("its last worker has turned to another one that waited", &["status"])
            }
            EventType::BulkDeleteLost => task("its last worker was lost or has left", &["status"]),
            EventType::BulkDeleteUpdated => {
                task("its pace was changed", &["max_objects_per_second"])
            }
            EventType::BulkDeleteEnded => task("it is over", &["status"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_of_an_event_is_explained_and_every_explanation_is_of_one() {
        let named: Vec<&str> = EventType::ALL
            .iter()
            .flat_map(|event| event.about().members)
            .copied()
            .chain(["principal_id"])
            .collect();
        for name in &named {
            assert_eq!(MEMBERS.iter().filter(|member| member.name == *name).count(), 1, "{name}");
        }
        for member in MEMBERS {
            assert!(named.contains(&member.name), "{}", member.name);
        }
    }
}
