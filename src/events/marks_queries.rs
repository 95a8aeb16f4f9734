//! The SQL that reads the marks of a database, by which one history of it is distinguished from another.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Oid, Text};

use crate::db::{Work, statement};

/// The parts of the marks that the role may read. Managed databases hide some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    system: bool,
    timeline: bool,
}

/// The marks that distinguish one history of a database from another. Marks that the role may not read are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// That of the cluster: another one after a restored dump.
    pub system_identifier: Option<String>,
    /// Another one behind a promotion and a point-in-time restore.
    pub timeline: Option<String>,
    /// Another one in a copy within the cluster.
    pub database_oid: u32,
}

impl Marks {
    /// Returns whether these are of another history. Marks that are missing on either side say nothing.
    pub fn differ(&self, others: &Marks) -> bool {
        let other = |one: &Option<String>, another: &Option<String>| {
            one.is_some() && another.is_some() && one != another
        };
        self.database_oid != others.database_oid
            || other(&self.system_identifier, &others.system_identifier)
            || other(&self.timeline, &others.timeline)
    }

    /// Returns whether the data moved to another database, by a dump or a logical copy.
    pub fn is_copied_to(&self, others: &Marks) -> bool {
        Marks { timeline: None, ..self.clone() }.differ(others)
    }

    /// Returns whether the others have a mark that these have not.
    pub fn lack(&self, others: &Marks) -> bool {
        (self.system_identifier.is_none() && others.system_identifier.is_some())
            || (self.timeline.is_none() && others.timeline.is_some())
    }
}

/// Finds out what the role may see.
pub fn rights(connection: &mut PgConnection) -> Work<Rights> {
    let (system, timeline) = ReadRights {}.get_result(connection)?;
    Ok(Rights { system, timeline })
}

statement! {
    /// True if the functions are there and may be called. Asked for first, for a statement fails that merely names one that may not be.
    struct ReadRights {} -> (Bool, Bool),
    "SELECT coalesce(has_function_privilege(to_regprocedure('pg_control_system()'), 'EXECUTE'), false),
            coalesce(has_function_privilege(to_regprocedure('pg_walfile_name(pg_lsn)'), 'EXECUTE'), false)
            AND coalesce(has_function_privilege(to_regprocedure('pg_current_wal_lsn()'), 'EXECUTE'), false)
            AND NOT pg_is_in_recovery()"
}

/// The marks of the history that the database is on now.
pub fn marks(connection: &mut PgConnection, rights: Rights) -> Work<Marks> {
    if rights.system && rights.timeline {
        let (system, timeline, database_oid) =
            ReadMarks {}.get_result::<(String, String, u32)>(connection)?;
        return Ok(Marks {
            system_identifier: Some(system),
            timeline: Some(timeline),
            database_oid,
        });
    }
    let (database_oid,) = ReadDatabase {}.get_result::<(u32,)>(connection)?;
    let system_identifier = if rights.system {
        Some(ReadSystem {}.get_result::<(String,)>(connection)?.0)
    } else {
        None
    };
    let timeline = if rights.timeline {
        Some(ReadTimeline {}.get_result::<(String,)>(connection)?.0)
    } else {
        None
    };
    Ok(Marks { system_identifier, timeline, database_oid })
}

statement! {
    /// All of it. The control file has the timeline of the last checkpoint, which may be from before a promotion; the name of a WAL file
    /// does not.
    struct ReadMarks {} -> (Text, Text, Oid),
    "SELECT c.system_identifier::text, left(pg_walfile_name(pg_current_wal_lsn()), 8), d.oid
     FROM pg_control_system() c, pg_database d
     WHERE d.datname = current_database()"
}

statement! {
    /// The database among those of its cluster.
    struct ReadDatabase {} -> (Oid,),
    "SELECT oid FROM pg_database WHERE datname = current_database()"
}

statement! {
    /// The cluster.
    struct ReadSystem {} -> (Text,),
    "SELECT system_identifier::text FROM pg_control_system()"
}

statement! {
    /// The timeline.
    struct ReadTimeline {} -> (Text,),
    "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"
}
