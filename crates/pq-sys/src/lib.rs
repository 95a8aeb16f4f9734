//! Replaces the crate of this name between diesel and libpq: `[patch.crates-io]` of the workspace puts it there.
//!
//! It declares what diesel calls, as the original does, changes two functions, and adds one:
//!
//! - [`PQresultErrorField`] answers a question for the *column* of an error with its *SQLSTATE*. diesel reads the SQLSTATE and keeps it to itself,
//!   but hands on the column, which nobody here asks for. So the error itself carries its number, on whatever thread it is read.
//! - [`refused_by`] returns the SQLSTATE by which a server refuses a connection, which libpq writes into a message and nowhere else.
//! - [`PQconnectdb`] shows the socket of a new connection to whoever opens it by [`establish`], so that a wait on a peer that is silent can be
//!   ended from outside: libpq itself waits for ever. With it comes what [cancels](Cancel) its statements.
//!
//! With the feature `describe` it also has a server describe a statement, for the tests.
//!
//! All `unsafe` code of this repository is in this crate, except one declaration in `crates/malloc-trim`. The reason is in
//! `docs/adr/0022-database-errors-by-number.md`.

#![allow(non_camel_case_types, non_snake_case, reason = "the names are libpq's")]
#![allow(missing_docs, reason = "what is declared is described in libpq's manual, https://www.postgresql.org/docs/current/libpq.html")]

extern crate pq_src;

#[cfg(feature = "describe")]
pub mod describe;

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_short, c_uint, c_ulong, c_void};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

pub type Oid = c_uint;

/// A connection; only libpq knows what is in it.
#[repr(C)]
#[derive(Debug)]
pub struct PGconn {
    _private: [u8; 0],
}

/// A result; only libpq knows what is in it.
#[repr(C)]
#[derive(Debug)]
pub struct PGresult {
    _private: [u8; 0],
}

/// A connection that cancels what is under way on another one; only libpq knows what is in it.
#[repr(C)]
#[derive(Debug)]
struct PGcancelConn {
    _private: [u8; 0],
}

#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct pgNotify {
    pub relname: *mut c_char,
    pub be_pid: c_int,
    pub extra: *mut c_char,
    pub next: *mut pgNotify,
}

pub type PQnoticeProcessor = Option<unsafe extern "C" fn(arg: *mut c_void, message: *const c_char)>;

#[repr(u32)]
#[derive(Debug, Copy, Clone, Hash, PartialEq, Eq)]
pub enum ConnStatusType {
    CONNECTION_OK = 0,
    CONNECTION_BAD = 1,
    CONNECTION_STARTED = 2,
    CONNECTION_MADE = 3,
    CONNECTION_AWAITING_RESPONSE = 4,
    CONNECTION_AUTH_OK = 5,
    CONNECTION_SETENV = 6,
    CONNECTION_SSL_STARTUP = 7,
    CONNECTION_NEEDED = 8,
    CONNECTION_CHECK_WRITABLE = 9,
    CONNECTION_CONSUME = 10,
    CONNECTION_GSS_STARTUP = 11,
    CONNECTION_CHECK_TARGET = 12,
    CONNECTION_CHECK_STANDBY = 13,
    CONNECTION_ALLOCATED = 14,
    CONNECTION_AUTHENTICATING = 15,
}

#[repr(u32)]
#[derive(Debug, Copy, Clone, Hash, PartialEq, Eq)]
pub enum ExecStatusType {
    PGRES_EMPTY_QUERY = 0,
    PGRES_COMMAND_OK = 1,
    PGRES_TUPLES_OK = 2,
    PGRES_COPY_OUT = 3,
    PGRES_COPY_IN = 4,
    PGRES_BAD_RESPONSE = 5,
    PGRES_NONFATAL_ERROR = 6,
    PGRES_FATAL_ERROR = 7,
    PGRES_COPY_BOTH = 8,
    PGRES_SINGLE_TUPLE = 9,
    PGRES_PIPELINE_SYNC = 10,
    PGRES_PIPELINE_ABORTED = 11,
    PGRES_TUPLES_CHUNK = 12,
}

#[repr(u32)]
#[derive(Debug, Copy, Clone, Hash, PartialEq, Eq)]
pub enum PGTransactionStatusType {
    PQTRANS_IDLE = 0,
    PQTRANS_ACTIVE = 1,
    PQTRANS_INTRANS = 2,
    PQTRANS_INERROR = 3,
    PQTRANS_UNKNOWN = 4,
}

/// The codes of the fields of an error, from `postgres_ext.h`.
const SQLSTATE: c_int = b'C' as c_int;
const COLUMN_NAME: c_int = b'c' as c_int;

/// libpq's own functions, of which this crate changes what they do.
mod original {
    use super::{ConnStatusType, PGcancelConn, PGconn, PGresult, c_char, c_int};

    unsafe extern "C" {
        pub fn PQconnectdb(conninfo: *const c_char) -> *mut PGconn;
        pub fn PQconnectStart(conninfo: *const c_char) -> *mut PGconn;
        pub fn PQconnectPoll(conn: *mut PGconn) -> c_int;
        pub fn PQsetErrorVerbosity(conn: *mut PGconn, verbosity: c_int) -> c_int;
        pub fn PQsocket(conn: *const PGconn) -> c_int;
        pub fn PQbackendPID(conn: *const PGconn) -> c_int;
        pub fn PQresultErrorField(res: *const PGresult, fieldcode: c_int) -> *mut c_char;
        pub fn PQcancelCreate(conn: *mut PGconn) -> *mut PGcancelConn;
        pub fn PQcancelStatus(conn: *const PGcancelConn) -> ConnStatusType;
        pub fn PQcancelBlocking(conn: *mut PGcancelConn) -> c_int;
        pub fn PQcancelReset(conn: *mut PGcancelConn);
        pub fn PQcancelFinish(conn: *mut PGcancelConn);
    }
}

unsafe extern "C" {
    pub fn PQfinish(conn: *mut PGconn);
    pub fn PQstatus(conn: *const PGconn) -> ConnStatusType;
    pub fn PQtransactionStatus(conn: *const PGconn) -> PGTransactionStatusType;
    pub fn PQerrorMessage(conn: *const PGconn) -> *mut c_char;
    pub fn PQsetNoticeProcessor(conn: *mut PGconn, proc_: PQnoticeProcessor, arg: *mut c_void) -> PQnoticeProcessor;
    pub fn PQexec(conn: *mut PGconn, query: *const c_char) -> *mut PGresult;
    pub fn PQprepare(
        conn: *mut PGconn,
        stmtName: *const c_char,
        query: *const c_char,
        nParams: c_int,
        paramTypes: *const Oid,
    ) -> *mut PGresult;
    pub fn PQsendQueryParams(
        conn: *mut PGconn,
        command: *const c_char,
        nParams: c_int,
        paramTypes: *const Oid,
        paramValues: *const *const c_char,
        paramLengths: *const c_int,
        paramFormats: *const c_int,
        resultFormat: c_int,
    ) -> c_int;
    pub fn PQsendQueryPrepared(
        conn: *mut PGconn,
        stmtName: *const c_char,
        nParams: c_int,
        paramValues: *const *const c_char,
        paramLengths: *const c_int,
        paramFormats: *const c_int,
        resultFormat: c_int,
    ) -> c_int;
    pub fn PQsetSingleRowMode(conn: *mut PGconn) -> c_int;
    pub fn PQgetResult(conn: *mut PGconn) -> *mut PGresult;
    pub fn PQconsumeInput(conn: *mut PGconn) -> c_int;
    pub fn PQnotifies(conn: *mut PGconn) -> *mut pgNotify;
    pub fn PQputCopyData(conn: *mut PGconn, buffer: *const c_char, nbytes: c_int) -> c_int;
    pub fn PQputCopyEnd(conn: *mut PGconn, errormsg: *const c_char) -> c_int;
    pub fn PQgetCopyData(conn: *mut PGconn, buffer: *mut *mut c_char, async_: c_int) -> c_int;
    pub fn PQresultStatus(res: *const PGresult) -> ExecStatusType;
    pub fn PQresultErrorMessage(res: *const PGresult) -> *mut c_char;
    pub fn PQntuples(res: *const PGresult) -> c_int;
    pub fn PQnfields(res: *const PGresult) -> c_int;
    pub fn PQfname(res: *const PGresult, field_num: c_int) -> *mut c_char;
    pub fn PQftype(res: *const PGresult, field_num: c_int) -> Oid;
    pub fn PQcmdTuples(res: *mut PGresult) -> *mut c_char;
    pub fn PQgetvalue(res: *const PGresult, tup_num: c_int, field_num: c_int) -> *mut c_char;
    pub fn PQgetlength(res: *const PGresult, tup_num: c_int, field_num: c_int) -> c_int;
    pub fn PQgetisnull(res: *const PGresult, tup_num: c_int, field_num: c_int) -> c_int;
    pub fn PQclear(res: *mut PGresult);
    pub fn PQfreemem(ptr: *mut c_void);
}

/// A field of an error, as libpq has it; but for the column there is the SQLSTATE.
///
/// # Safety
///
/// As for libpq's function: `res` is a result that is not cleared yet, and the returned text is valid as long as it.
#[must_use]
pub unsafe fn PQresultErrorField(res: *const PGresult, fieldcode: c_int) -> *mut c_char {
    let fieldcode = if fieldcode == COLUMN_NAME { SQLSTATE } else { fieldcode };
    // SAFETY: the caller's promise is the one that libpq asks for; any number may be asked for, an unknown one yields null.
    unsafe { original::PQresultErrorField(res, fieldcode) }
}

/// Connects, as libpq does, and shows the connection to whoever waits for it in [`establish`].
///
/// # Safety
///
/// As for libpq's function: `conninfo` is a text that ends in a null byte.
#[must_use]
pub unsafe fn PQconnectdb(conninfo: *const c_char) -> *mut PGconn {
    // SAFETY: the caller's promise is the one that libpq asks for.
    let connection = unsafe { original::PQconnectdb(conninfo) };
    let Some(shown) = WAITING.take() else { return connection };
    // SAFETY: libpq allows both for a connection of any state, and for null.
    let (socket, backend) = unsafe { (original::PQsocket(connection), original::PQbackendPID(connection)) };
    if socket >= 0 {
        // SAFETY: the descriptor is open for as long as the connection, which nobody else knows yet; it is borrowed to be duplicated.
        let socket = unsafe { BorrowedFd::borrow_raw(socket) };
        if let Ok(socket) = socket.try_clone_to_owned() {
            // SAFETY: libpq has just opened it, and nobody else knows it yet.
            let cancel = unsafe { Cancel::of(connection) };
            shown(Connected { socket, backend, cancel });
        }
    }
    connection
}

/// A connection that libpq has just opened.
#[derive(Debug)]
pub struct Connected {
    /// A descriptor of its socket, beside libpq's own: to look whether there is something to read, and to shut it down. Reading or writing here
    /// would break the connection.
    pub socket: OwnedFd,
    /// The process id of the backend, as received at the start: from the server itself, or invented by a pooler in between.
    pub backend: c_int,
    /// Cancels what is under way on it; none where the server has not said how.
    pub cancel: Option<Cancel>,
}

/// Cancels the present statement of one connection, from any thread. It has copies of everything it needs, so the connection may be in use,
/// or closed.
#[derive(Debug)]
pub struct Cancel(NonNull<PGcancelConn>);

// SAFETY: nothing in it belongs to a thread, and whoever uses it has it alone.
unsafe impl Send for Cancel {}

impl Cancel {
    /// Of a connection that is open.
    ///
    /// # Safety
    ///
    /// `connection` is libpq's, is not finished yet, and nobody else uses it meanwhile.
    unsafe fn of(connection: *mut PGconn) -> Option<Self> {
        // SAFETY: the caller's promise is the one that libpq asks for; what it returns may be null.
        let cancel = Cancel(NonNull::new(unsafe { original::PQcancelCreate(connection) })?);
        // SAFETY: it was just made. One that could not be made wholly must not be used.
        let is_whole = unsafe { original::PQcancelStatus(cancel.0.as_ptr()) } == ConnStatusType::CONNECTION_ALLOCATED;
        is_whole.then_some(cancel)
    }

    /// Asks the server to end what is under way, over a connection of its own that is like the one it is about, and waits until the server has seen
    /// to it: for as long as connecting may take, at most. Where nothing is under way nothing happens. Returns whether the server could be asked.
    pub fn send(&mut self) -> bool {
        // SAFETY: it is whole, and nobody else uses it; once reset it can be used again, whatever came of it.
        unsafe {
            let asked = original::PQcancelBlocking(self.0.as_ptr()) == 1;
            original::PQcancelReset(self.0.as_ptr());
            asked
        }
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        unsafe { original::PQcancelFinish(self.0.as_ptr()) }
    }
}

type Shown = Box<dyn FnOnce(Connected)>;

thread_local! {
    static WAITING: RefCell<Option<Shown>> = const { RefCell::new(None) };
}

/// Opens a connection by `open`, on this thread. `shown` is given what libpq has connected before anything is sent on it.
pub fn establish<T>(shown: impl FnOnce(Connected) + 'static, open: impl FnOnce() -> T) -> T {
    WAITING.set(Some(Box::new(shown)));
    let opened = open();
    // There is none any more, unless `open` did not get as far as libpq.
    drop(WAITING.take());
    opened
}

/// The results of `PQconnectPoll`, from `libpq-fe.h`.
const POLLING_FAILED: c_int = 0;
const POLLING_READING: c_int = 1;
const POLLING_OK: c_int = 3;
/// Messages that have the severity and the SQLSTATE alone.
const ERRORS_SQLSTATE: c_int = 3;

#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

const POLLIN: c_short = 1;
const POLLOUT: c_short = 4;

unsafe extern "C" {
    fn poll(fds: *mut PollFd, count: c_ulong, milliseconds: c_int) -> c_int;
}

/// The SQLSTATE by which the server of this address refuses a connection. None if it does not, or not within this time, or if there is no
/// server.
#[must_use]
pub fn refused_by(conninfo: &CStr, patience: Duration) -> Option<[u8; 5]> {
    // SAFETY: the text ends in a null byte. libpq allows what follows for a connection of any state and for null, until it is finished; the message is
    // read before that.
    unsafe {
        let connection = original::PQconnectStart(conninfo.as_ptr());
        original::PQsetErrorVerbosity(connection, ERRORS_SQLSTATE);
        let message = is_refused(connection, Instant::now() + patience).then(|| CStr::from_ptr(PQerrorMessage(connection)).to_bytes());
        let number = message.and_then(|message| message.trim_ascii_end().last_chunk::<5>().copied());
        PQfinish(connection);
        number.filter(|number| number.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()))
    }
}

/// Continues connecting until that fails, which it reports, or has succeeded or takes too long.
///
/// # Safety
///
/// `connection` is one that was started and is not finished yet, or null.
unsafe fn is_refused(connection: *mut PGconn, ends: Instant) -> bool {
    let mut wants = POLLOUT;
    // SAFETY: the caller's promise is the one that libpq asks for; the descriptor is libpq's, and is only waited for.
    unsafe {
        while PQstatus(connection) != ConnStatusType::CONNECTION_BAD {
            let left = c_int::try_from(ends.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(c_int::MAX);
            let mut socket = PollFd { fd: original::PQsocket(connection), events: wants, revents: 0 };
            if left == 0 || poll(&raw mut socket, 1, left) <= 0 {
                return false;
            }
            match original::PQconnectPoll(connection) {
                POLLING_FAILED => return true,
                POLLING_OK => return false,
                polled => wants = if polled == POLLING_READING { POLLIN } else { POLLOUT },
            }
        }
    }
    false
}
