//! What those need who watch one thing until its end.

use tokio_util::sync::CancellationToken;

use crate::access::Authenticator;
use crate::db::Db;
use crate::events::Hub;

/// What every watch needs.
#[derive(Clone)]
pub struct Watching {
    /// The database.
    pub db: Db,
    /// Wakes when something happened in the realm.
    pub hub: Hub,
    /// Knows when the caller's key ends.
    pub authenticator: Authenticator,
    /// Cancelled when the process takes no more calls.
    pub closing: CancellationToken,
}
