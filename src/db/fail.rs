//! Why a piece of work on the database ended.

use crate::error::Error;

/// Why a piece of work on the database ended: the database failed it, or it has a response for the caller.
#[derive(Debug)]
pub enum Fail {
    /// The database failed; if it was by losing a race, the work is done again.
    Database(diesel::result::Error),
    /// The work came to an end that the caller must hear of. The transaction is rolled back.
    Answer(Error),
}

impl From<diesel::result::Error> for Fail {
    fn from(error: diesel::result::Error) -> Self {
        Fail::Database(error)
    }
}

impl From<Fail> for Error {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::Database(error) => error.into(),
            Fail::Answer(error) => error,
        }
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Fail::Answer(error)
    }
}
