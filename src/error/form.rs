//! Faults of a request that were found before its service checks it, and are reported together with those that the service finds.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::{Code, Error, Result, Violations};

tokio::task_local! {
    static CURRENT: Form;
}

/// The faults that were found in the form of a request. The readable part of the request is still handed to its service, which checks it and
/// then sees that nothing is to be done: so every fault is reported at once. Among the extensions of a request; clones are one and the
/// same.
#[derive(Clone, Debug, Default)]
pub struct Form(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_spoilt: AtomicBool,
    noted: Mutex<Violations>,
    last: OnceLock<i64>,
    void: OnceLock<Vec<String>>,
}

impl Form {
    /// Returns that of a request, and adds it to the extensions if it is missing.
    pub fn of(extensions: &mut http::Extensions) -> Form {
        extensions.get_or_insert_with(Form::default).clone()
    }

    /// Returns that of the request for which the present work is done.
    pub fn current() -> Option<Form> {
        CURRENT.try_with(Form::clone).ok()
    }

    /// Notes that the request has faults, which whoever found them reports.
    pub fn spoil(&self) {
        self.0.is_spoilt.store(true, Relaxed);
    }

    /// Notes faults, which are reported together with those that the service finds.
    pub fn note(&self, faults: &Violations) {
        if !faults.is_empty() {
            self.spoil();
            self.0.noted.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
        }
    }

    /// Returns whether the request has faults.
    pub fn is_spoilt(&self) -> bool {
        self.0.is_spoilt.load(Relaxed)
    }

    /// The faults that were noted, which are then no longer its own.
    pub fn take(&self) -> Violations {
        let noted =
            std::mem::take(&mut *self.0.noted.lock().unwrap_or_else(PoisonError::into_inner));
        if !noted.is_empty() {
            self.0.is_spoilt.store(false, Relaxed);
        }
        noted
    }

    /// The message at this place of a stream, from 1, has faults. Its service checks it, and breaks off.
    pub fn end_at(&self, place: i64) {
        // The stream ends with the first.
        let _ = self.0.last.set(place);
    }

    /// Returns whether the message at this position has faults.
    pub fn ends_at(&self, place: i64) -> bool {
        self.0.last.get() == Some(&place)
    }

    /// Notes the members of the body, by their proto names from the top of the message, that are named and empty. They are reported only if
    /// the service asks for them.
    pub fn report_void(&self, members: Vec<String>) {
        // A body is read once.
        let _ = self.0.void.set(members);
    }

    /// Those members; none by gRPC, where an empty member cannot be distinguished from a missing one.
    pub fn void(&self) -> &[String] {
        self.0.void.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Does work for the request: once its form has faults, nothing is done to the database in it.
    pub async fn within<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    /// Fails if the present work is for a request whose form has faults.
    pub fn check_current() -> Result<()> {
        if CURRENT.try_with(Form::is_spoilt).unwrap_or_default() {
            Err(Form::refusal())
        } else {
            Ok(())
        }
    }

    /// The failure of a service that has nothing to do because of faults; those who found the faults report them.
    pub fn refusal() -> Error {
        Error::new(Code::ValidationFailed, "The request has faults.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_done_for_a_request_with_faults_and_others_are_not_concerned() {
        let form = Form::default();
        let looked = form.clone().within(async {
            let before = Form::check_current().is_ok();
            form.spoil();
            (before, Form::check_current().map_err(|error| error.code()))
        });
        assert_eq!(looked.await, (true, Err(Code::ValidationFailed)));
        assert!(Form::check_current().is_ok() && Form::current().is_none());
    }

    #[test]
    fn what_was_noted_is_taken_once() {
        let form = Form::default();
        let mut faults = Violations::new();
        faults.add("Api-Version", "unknown_version", "is not known");
        form.note(&faults);
        form.note(&Violations::new());
        assert!(form.is_spoilt() && form.take().count() == 1);
        assert!(!form.is_spoilt() && form.take().is_empty());
    }
}
