//! The kinds of work that this version has workers for.

use crate::bulk_delete::chunk::BULK_DELETES;
use crate::consistency::CHECKS;
use crate::task::work::Works;

/// All of them.
pub const WORKS: Works = Works(&[BULK_DELETES, CHECKS]);
