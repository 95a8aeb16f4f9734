//! How lists of tasks are asked for. Pure.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;
use uuid::Uuid;

use crate::db::text_enum;
use crate::error::{Result, Violations};
use crate::filter::{Filter, Moment, Property, PropertyKind, Vocabulary, only_filter};
use crate::proto::{convert, v1};
use crate::task::model::DeleteMode;
use crate::task::state::TaskState;

const DEFAULT_SIZE: i32 = 50;
const MAX_SIZE: i32 = 1_000;

/// Which tasks a list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that are not over.
    Active,
    /// Those that ended within the last 30 days.
    Ended,
}

text_enum! {
    /// The orders of a list, in the words of the contract.
    pub enum Order {
        /// When it was asked for.
        CreatedTime = "createdTime",
        /// When it first started; those that have not come last.
        StartTime = "startTime",
        /// When it ended; those that have not come last.
        EndTime = "endTime",
        /// When it was last asked for, started, paused or ended.
        UpdatedTime = "updatedTime",
        /// Its name, by byte.
        Name = "name",
        /// Its status, by byte.
        Status = "status",
        /// The principal that started it.
        CreatedBy = "createdBy",
    }
}

/// The properties for the filter of a list of tasks.
pub static TASK: Vocabulary = Vocabulary {
    properties: &[
        Property::new(&["id"], PropertyKind::Text, "CAST(b.id AS text)"),
        Property::new(&["name"], PropertyKind::Text, "b.name"),
        Property::new(&["status"], PropertyKind::Text, "b.status").one_of(TaskState::SPELLINGS),
        Property::nullable(&["mode"], PropertyKind::Text, "b.mode").one_of(DeleteMode::SPELLINGS),
        Property::nullable(&["entityType", "entity_type"], PropertyKind::Text, "b.entity_type"),
        Property::new(
            &["createdBy", "created_by"],
            PropertyKind::Text,
            "CAST(b.principal_id AS text)",
        ),
        Property::new(&["createdTime", "created_time"], PropertyKind::Time, "b.created_at"),
        Property::nullable(&["startTime", "start_time"], PropertyKind::Time, "b.started_at"),
        Property::nullable(&["endTime", "end_time"], PropertyKind::Time, "b.ended_at"),
    ],
};

/// A page of a list of tasks, or their count.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// How many.
    pub limit: i64,
    /// How many are left out before.
    pub offset: i64,
    /// The order.
    pub order: Order,
    /// From the least to the greatest.
    pub ascending: bool,
    /// The principal who started them.
    pub created_by: Option<Uuid>,
    /// They were asked for then or later.
    pub since: Option<DateTime<Utc>>,
    /// They were asked for before.
    pub before: Option<DateTime<Utc>>,
    /// The condition that they match.
    pub filter: Option<Filter>,
}

impl Listing {
    /// Checks a request for a page.
    pub fn check(request: v1::ListTasksRequest) -> Result<Listing> {
        let mut faults = Violations::new();
        let limit = match request.max {
            0 => DEFAULT_SIZE,
            max if (1..=MAX_SIZE).contains(&max) => max,
            _ => {
                faults.add(
                    "max",
                    "out_of_range",
                    format!("must be from 1 to 1,000, or 0 for {DEFAULT_SIZE}"),
                );
                DEFAULT_SIZE
            }
        };
        if request.offset < 0 {
            faults.add("offset", "out_of_range", "must be at least 0");
        }
        let order = match request.order_by.trim() {
            "" => Some(Order::CreatedTime),
            given => Order::parse(given),
        };
        if order.is_none() {
            let words: Vec<_> = Order::ALL.iter().map(|order| format!("`{order}`")).collect();
            faults.add("order_by", "invalid", format!("must be one of {}", words.join(", ")));
        }
        let narrowed = Listing::narrowed(
            &request.created_by,
            request.created_since,
            request.created_before,
            &mut faults,
        );
        let filter = only_filter(&TASK, &request.filter, faults)?;
        Ok(Listing {
            limit: limit.into(),
            offset: request.offset.into(),
            order: order.unwrap_or(Order::CreatedTime),
            ascending: request.ascending,
            filter,
            ..narrowed
        })
    }

    /// Checks a request for a number of tasks.
    pub fn check_count(request: v1::CountTasksRequest) -> Result<Listing> {
        let mut faults = Violations::new();
        let narrowed = Listing::narrowed(
            &request.created_by,
            request.created_since,
            request.created_before,
            &mut faults,
        );
        Ok(Listing { filter: only_filter(&TASK, &request.filter, faults)?, ..narrowed })
    }

    fn narrowed(
        created_by: &str,
        since: Option<Timestamp>,
        before: Option<Timestamp>,
        faults: &mut Violations,
    ) -> Listing {
        let principal = (!created_by.is_empty()).then(|| Uuid::try_parse(created_by).ok());
        if principal == Some(None) {
            faults.add("created_by", "invalid", "must be the id of a principal, a UUID");
        }
        let mut moment = |given: Option<Timestamp>, field: &str| {
            let moment = convert::check_moment(given?, field, faults)?;
            if moment != DateTime::UNIX_EPOCH
                && Moment::of_milliseconds(moment.timestamp_millis()).is_none()
            {
                let meant = Moment::meant_by(moment.timestamp_millis())
                    .and_then(|meant| meant.as_milliseconds());
                let meant = meant.map(|meant| format!("; {meant}")).unwrap_or_default();
                faults.add(
                    field,
                    "out_of_range",
                    format!("is so near to the beginning of 1970 that it cannot be meant: by REST it is in milliseconds{meant}"),
                );
            }
            Some(moment)
        };
        let (since, before) = (moment(since, "created_since"), moment(before, "created_before"));
        Listing {
            limit: 0,
            offset: 0,
            order: Order::CreatedTime,
            ascending: false,
            created_by: principal.flatten(),
            since,
            before,
            filter: None,
        }
    }
}

// The two lists are asked for alike.
impl From<v1::ListTaskHistoryRequest> for v1::ListTasksRequest {
    fn from(request: v1::ListTaskHistoryRequest) -> Self {
        let v1::ListTaskHistoryRequest {
            tenant,
            max,
            offset,
            order_by,
            ascending,
            created_by,
            created_since,
            created_before,
            filter,
        } = request;
        v1::ListTasksRequest {
            tenant,
            max,
            offset,
            order_by,
            ascending,
            created_by,
            created_since,
            created_before,
            filter,
        }
    }
}

impl From<v1::CountTaskHistoryRequest> for v1::CountTasksRequest {
    fn from(request: v1::CountTaskHistoryRequest) -> Self {
        let v1::CountTaskHistoryRequest {
            tenant,
            created_by,
            created_since,
            created_before,
            filter,
        } = request;
        v1::CountTasksRequest { tenant, created_by, created_since, created_before, filter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_of_the_latest_fifty_unless_it_is_said() {
        let listing = Listing::check(v1::ListTasksRequest::default()).unwrap();
        assert_eq!(
            (listing.limit, listing.offset, listing.order, listing.ascending),
            (50, 0, Order::CreatedTime, false)
        );
        let request = v1::ListTasksRequest {
            max: 1000,
            offset: 3,
            order_by: "name".to_owned(),
            ascending: true,
            ..Default::default()
        };
        let listing = Listing::check(request).unwrap();
        assert_eq!(
            (listing.limit, listing.offset, listing.order, listing.ascending),
            (1000, 3, Order::Name, true)
        );
    }

    #[test]
    fn the_time_that_an_advice_names_is_taken() {
        let since = |milliseconds: i64| {
            let created_since = Some(Timestamp {
                seconds: milliseconds.div_euclid(1000),
                nanos: (milliseconds.rem_euclid(1000) * 1_000_000) as i32,
            });
            Listing::check(v1::ListTasksRequest { created_since, ..Default::default() })
        };
        for (meant, reported) in [(2024, "a year"), (1_767_225_600, "seconds")] {
            let refusal = since(meant).unwrap_err();
            let advice = &refusal.violations()[0].description;
            assert!(advice.contains(reported), "{advice}");
            assert!(since(advice.split('`').nth(1).unwrap().parse().unwrap()).is_ok(), "{advice}");
        }
        // No date that could be written is so near to 1970, so there is no advice.
        for number in [1, 1971, 20_260_101] {
            assert!(
                !since(number).unwrap_err().violations()[0].description.contains('`'),
                "{number}"
            );
        }
    }

    #[test]
    fn every_fault_of_a_list_is_reported() {
        let request = v1::ListTasksRequest {
            max: 1001,
            offset: -1,
            order_by: "colour".to_owned(),
            created_by: "me".to_owned(),
            created_since: Some(Timestamp { seconds: i64::MAX, nanos: 0 }),
            created_before: Some(Timestamp { seconds: 0, nanos: -1 }),
            filter: "equals(".to_owned(),
            ..Default::default()
        };
        let error = Listing::check(request).unwrap_err();
        let fields: Vec<_> = error.violations().iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "max",
                "offset",
                "order_by",
                "created_by",
                "created_since",
                "created_before",
                "filter"
            ]
        );
    }
}
