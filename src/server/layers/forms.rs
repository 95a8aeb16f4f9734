//! Has nothing done for a request whose form has faults.

use http::{Request, Response};
use tonic::body::Body;

use super::around::{Around, Inner};
use crate::db::form;
use crate::error::Form;

/// Stands before the services. The gateway reads what it can of a request, and says by a [`Form`] among its extensions that the rest could not be.
#[derive(Clone, Copy, Debug)]
pub struct Forms;

impl Around for Forms {
    async fn around<S: Inner>(self, request: Request<Body>, mut inner: S) -> Result<Response<Body>, S::Error> {
        match request.extensions().get::<Form>().cloned() {
            Some(form) => form::of(form, async move { inner.call(request).await }).await,
            None => inner.call(request).await,
        }
    }
}
