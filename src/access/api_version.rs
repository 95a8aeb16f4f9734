//! Versions of the API, named for the day from which they apply. Pure.

use chrono::NaiveDate;

use crate::error::{Error, Result};

/// A version that this service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(NaiveDate);

/// Every version, the oldest first. A key speaks the one that was the latest when it was made, unless a call names another.
const VERSIONS: &[(i32, u32, u32)] = &[(2026, 11, 1)];

impl ApiVersion {
    /// Every version, the oldest first.
    pub fn all() -> impl DoubleEndedIterator<Item = ApiVersion> {
        VERSIONS
            .iter()
            .filter_map(|(year, month, day)| NaiveDate::from_ymd_opt(*year, *month, *day))
            .map(ApiVersion)
    }

    /// The latest version, which new keys are pinned to.
    pub fn latest() -> ApiVersion {
        ApiVersion::all().next_back().expect("there is a version")
    }

    /// The version that a key is pinned to: the latest of those from no later than this day. Keys from before there were versions have the first.
    pub fn pinned(day: Option<NaiveDate>) -> ApiVersion {
        let mut versions = ApiVersion::all();
        let first = versions.next().expect("there is a version");
        day.and_then(|day| ApiVersion::all().rfind(|version| version.0 <= day)).unwrap_or(first)
    }

    /// The version that a call names.
    pub fn parse(text: &str) -> Result<ApiVersion> {
        ApiVersion::all().find(|version| version.to_string() == text).ok_or_else(|| {
            let known: Vec<String> = ApiVersion::all().map(|version| version.to_string()).collect();
            Error::invalid(
                "Api-Version",
                "unknown_version",
                format!("must be one of {}", known.join(", ")),
            )
        })
    }

    /// The day.
    pub fn day(self) -> NaiveDate {
        self.0
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_days_in_order_and_parse_as_they_are_written() {
        let all: Vec<ApiVersion> = ApiVersion::all().collect();
        assert!(all.is_sorted() && all.len() == VERSIONS.len());
        for version in all {
            assert_eq!(ApiVersion::parse(&version.to_string()).unwrap(), version);
        }
        for unknown in ["2020-01-01", "", "2026-11", "2026-11-1", "latest"] {
            assert_eq!(
                ApiVersion::parse(unknown).unwrap_err().violations()[0].code,
                "unknown_version"
            );
        }
    }

    #[test]
    fn a_key_speaks_the_version_of_its_day() {
        let day = |text: &str| Some(text.parse().unwrap());
        assert_eq!(ApiVersion::pinned(None), ApiVersion::all().next().unwrap());
        assert_eq!(ApiVersion::pinned(day("1999-01-01")), ApiVersion::all().next().unwrap());
        assert_eq!(ApiVersion::pinned(day("2999-01-01")), ApiVersion::latest());
        assert_eq!(ApiVersion::pinned(Some(ApiVersion::latest().day())), ApiVersion::latest());
    }
}
