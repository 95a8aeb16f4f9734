//! Describes a statement as a server parses it, without running it: for the test that checks every statement against the schema.

use std::ffi::{CStr, c_char, c_int};

use super::{
    ConnStatusType, ExecStatusType, Oid, PGconn, PGresult, PQclear, PQerrorMessage, PQfinish, PQfname, PQftype, PQnfields, PQprepare,
    PQresultErrorMessage, PQresultStatus, PQstatus, original,
};

unsafe extern "C" {
    fn PQdescribePrepared(conn: *mut PGconn, stmt: *const c_char) -> *mut PGresult;
    fn PQnparams(res: *const PGresult) -> c_int;
    fn PQparamtype(res: *const PGresult, param_num: c_int) -> Oid;
    fn PQftable(res: *const PGresult, column_number: c_int) -> Oid;
    fn PQftablecol(res: *const PGresult, column_number: c_int) -> c_int;
}

/// A connection that has statements described.
#[derive(Debug)]
pub struct Describer {
    connection: *mut PGconn,
}

/// A statement, as the server understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The types of its parameters.
    pub parameters: Vec<Oid>,
    /// The columns that it returns.
    pub columns: Vec<Column>,
}

/// A column that a statement returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub oid: Oid,
    /// The table and the number of the column that it shows as it is; zeros where it is made of something else.
    pub origin: (Oid, c_int),
}

impl Describer {
    /// Connects; fails with libpq's message.
    pub fn connect(conninfo: &CStr) -> Result<Describer, String> {
        // SAFETY: the text ends in a null byte; the connection is finished when the value is dropped, and not used after that.
        let connection = Describer { connection: unsafe { original::PQconnectdb(conninfo.as_ptr()) } };
        // SAFETY: libpq allows both for a connection of any state and for null; the message is copied.
        unsafe {
            match PQstatus(connection.connection) {
                ConnStatusType::CONNECTION_OK => Ok(connection),
                _ => Err(text(PQerrorMessage(connection.connection))),
            }
        }
    }

    /// Describes a statement with parameters of these types; of a type 0 the server decides itself. Fails with its message.
    pub fn describe(&mut self, statement: &CStr, parameters: &[Oid]) -> Result<Description, String> {
        let count = c_int::try_from(parameters.len()).map_err(|error| error.to_string())?;
        // SAFETY: the texts end in null bytes, the list is as long as it is said to be, and libpq copies them.
        let prepared =
            unsafe { Answer(PQprepare(self.connection, c"".as_ptr(), statement.as_ptr(), count, parameters.as_ptr())) };
        prepared.check()?;
        // SAFETY: as above.
        let described = unsafe { Answer(PQdescribePrepared(self.connection, c"".as_ptr())) };
        described.check()?;
        Ok(described.read())
    }
}

impl Drop for Describer {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the connection; libpq allows null.
        unsafe { PQfinish(self.connection) }
    }
}

/// A result that is cleared when it is dropped.
struct Answer(*mut PGresult);

impl Answer {
    fn check(&self) -> Result<(), String> {
        // SAFETY: the result is not cleared yet; libpq allows null, of which it says that it is a fatal error. The message is copied.
        unsafe {
            match PQresultStatus(self.0) {
                ExecStatusType::PGRES_COMMAND_OK => Ok(()),
                _ => Err(text(PQresultErrorMessage(self.0))),
            }
        }
    }

    fn read(&self) -> Description {
        // SAFETY: the result is not cleared yet, each number is below the count that it gives, and names are copied.
        unsafe {
            Description {
                parameters: (0..PQnparams(self.0)).map(|n| PQparamtype(self.0, n)).collect(),
                columns: (0..PQnfields(self.0))
                    .map(|n| Column {
                        name: text(PQfname(self.0, n)),
                        oid: PQftype(self.0, n),
                        origin: (PQftable(self.0, n), PQftablecol(self.0, n)),
                    })
                    .collect(),
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the result; libpq allows null.
        unsafe { PQclear(self.0) }
    }
}

/// Copies a text of libpq's.
///
/// # Safety
///
/// `text` is null or ends in a null byte.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().trim_end().to_owned()
}
