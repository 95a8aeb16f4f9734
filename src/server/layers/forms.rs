//! Has nothing done for a request whose form has faults, and reports those that the layers have found with those of the service.

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;

use super::around::{Around, Inner};
use super::methods::Methods;
use super::refuse;
use crate::error::{Error, Form, Violations, together};

/// Comes before the services. Code that reads a part of a request before them notes the faults of that part in its [`Form`], among its
/// extensions; the service reads the rest all the same.
#[derive(Clone, Debug)]
pub struct Forms {
    methods: Methods,
}

impl Forms {
    /// For these methods.
    pub fn new(methods: Methods) -> Self {
        Forms { methods }
    }
}

impl Around for Forms {
    async fn around<S: Inner>(
        self,
        mut request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let form = Form::of(request.extensions_mut());
        if self.methods.find(request.uri().path()).is_some_and(|method| method.sends_many) {
            // The faults of the head of a stream are reported before anything of it is read.
            let faults = form.take();
            if !faults.is_empty() {
                return Ok(refuse(Error::validation(faults)));
            }
        }
        let answer = form.clone().within(async move { inner.call(request).await }).await?;
        Ok(reported(&form.take(), answer))
    }
}

/// The response, or the one that replaces it for a request with these faults.
fn reported(faults: &Violations, answer: Response<Body>) -> Response<Body> {
    let answered =
        Status::from_header_map(answer.headers()).filter(|status| status.code() != tonic::Code::Ok);
    match together(faults, answered.as_ref(), str::to_owned) {
        Some(error) => refuse(error),
        None => answer,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::server::layers::testing::{ok, request};
    use crate::server::layers::{AroundLayer, code_of};

    const STREAM: &str = "/offboard.v1.EntityService/ImportEntities";
    const CALL: &str = "/offboard.v1.EntityService/GetEntity";

    /// Returns the response to a request with a fault in a header, by a service that finds another fault or none.
    async fn answered(path: &str, finds: Option<&'static str>) -> (Status, bool) {
        let (reported, called) = (
            std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)),
            std::sync::atomic::Ordering::Relaxed,
        );
        let seen = reported.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            seen.store(Form::check_current().is_err(), called);
            let answer =
                finds.map_or_else(ok, |field| refuse(Error::invalid(field, "invalid", "is wrong")));
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let mut request = request(path);
        let mut faults = Violations::new();
        faults.add("Api-Version", "unknown_version", "is not known");
        Form::of(request.extensions_mut()).note(&faults);
        let answer = AroundLayer(Forms::new(Methods::served()))
            .layer(service)
            .oneshot(request)
            .await
            .expect("infallible");
        assert_eq!(code_of(answer.headers()), Some(tonic::Code::InvalidArgument));
        (Status::from_header_map(answer.headers()).expect("a status"), reported.load(called))
    }

    #[tokio::test]
    async fn faults_of_headers_are_reported_with_those_of_the_service_which_does_nothing() {
        let (both, held_back) = answered(CALL, Some("entity_id")).await;
        assert_eq!((both.message(), held_back), ("The request has 2 faults.", true));
        assert_eq!(answered(CALL, None).await.0.message(), "Api-Version: is not known");
        assert!(!answered(STREAM, None).await.1, "of a stream nothing is read");
    }
}
