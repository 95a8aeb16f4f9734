//! The kinds of events. Pure.

use crate::db::text_enum;

text_enum! {
    /// What an event tells of. Its `subjects` are the ids of what it happened to: one, or those of a chunk.
    pub enum EventType {
        /// Entities were created.
        EntityCreated = "entity.created",
        /// An entity is to be offboarded.
        EntityOffboardingRequested = "entity.offboarding_requested",
        /// An offboarding was canceled before it started; the entity is active again.
        EntityOffboardingCanceled = "entity.offboarding_canceled",
        /// An offboarding could not be done; the entity is active again.
        EntityOffboardingFailed = "entity.offboarding_failed",
        /// An entity was removed by its offboarding.
        EntityOffboarded = "entity.offboarded",
        /// Entities were removed by a bulk delete.
        EntityDeleted = "entity.deleted",
        /// What a realm has decided on removals was changed. The subject is the organisation.
        RemovalPolicyUpdated = "removal_policy.updated",
        /// A portfolio was created.
        PortfolioCreated = "portfolio.created",
        /// Entities became members of a portfolio.
        PortfolioEntityAttached = "portfolio.entity_attached",
        /// Entities are members of a portfolio no more.
        PortfolioEntityDetached = "portfolio.entity_detached",
        /// A bulk delete was asked for.
        BulkDeleteScheduled = "bulk_delete.scheduled",
        /// A worker has taken a bulk delete up.
        BulkDeleteStarted = "bulk_delete.started",
        /// A bulk delete ended; `status` in its data says how.
        BulkDeleteEnded = "bulk_delete.ended",
    }
}
