//! The tenant's world that every query names.

use crate::db::text_enum;

text_enum! {
    /// One of the two modes of an organisation.
    pub enum Mode {
        /// For trying things.
        Test = "test",
        /// For real.
        Live = "live",
    }
}

/// An organisation in one mode: what every row belongs to and every query names first.
///
/// A realm comes only from the key of an authenticated request or from a claimed job: see where [`Realm::from_row`] is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Realm {
    id: i32,
    org: String,
    mode: Mode,
}

impl Realm {
    /// The realm of a row that a caller has authenticated with, or that a worker has claimed.
    pub(crate) fn from_row(id: i32, org: String, mode: Mode) -> Self {
        Realm { id, org, mode }
    }

    /// The first column of every key.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The same, to bind it.
    pub(crate) fn id_ref(&self) -> &i32 {
        &self.id
    }

    /// The organisation's name; the `tenant` of the bulk delete API.
    pub fn org(&self) -> &str {
        &self.org
    }

    /// Which of its two worlds.
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

impl From<Mode> for crate::proto::v1::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Test => Self::Test,
            Mode::Live => Self::Live,
        }
    }
}
