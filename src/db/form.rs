//! Work for a request whose form has faults: its service may look at it, and nothing is done.

use std::future::Future;

use crate::error::{Code, Error, Form, Result};

tokio::task_local! {
    static FORM: Form;
}

/// Does work for a request of this form: once that has faults, no [`Db::run`](super::Db::run) in it does anything.
pub async fn of<T>(form: Form, work: impl Future<Output = T>) -> T {
    FORM.scope(form, work).await
}

/// Fails where the work at hand is for a request whose form has faults; whoever has found them tells them.
pub(super) fn check() -> Result<()> {
    if FORM.try_with(Form::is_spoilt).unwrap_or_default() {
        return Err(Error::new(Code::ValidationFailed, "The request has faults."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_done_for_a_request_with_faults_and_others_are_not_concerned() {
        let form = Form::default();
        let looked = of(form.clone(), async {
            let before = check().is_ok();
            form.spoil();
            (before, check().map_err(|error| error.code()))
        });
        assert_eq!(looked.await, (true, Err(Code::ValidationFailed)));
        assert!(check().is_ok());
    }
}
