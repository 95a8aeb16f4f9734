//! Responses whose HTTP form has more than the message: the metadata that the gateway turns into a status and headers.

use http::StatusCode;
use tonic::Response;
use tonic::metadata::MetadataValue;

/// The metadata that sets the HTTP status of a response.
pub const HTTP_CODE: &str = "x-http-code";

/// A response with an HTTP status of its own.
pub fn with_status<T>(message: T, status: StatusCode) -> Response<T> {
    let mut response = Response::new(message);
    response.metadata_mut().insert(HTTP_CODE, MetadataValue::from(status.as_u16()));
    response
}

/// 201, and where the new thing is. `path` is made of ids alone and so is ASCII.
pub fn created<T>(message: T, path: &str) -> Response<T> {
    located(with_status(message, StatusCode::CREATED), path)
}

/// 202, where the job is, and in how many seconds to ask again.
pub fn accepted<T>(message: T, path: &str, retry_after: u16) -> Response<T> {
    let mut response = located(with_status(message, StatusCode::ACCEPTED), path);
    response.metadata_mut().insert("retry-after", MetadataValue::from(retry_after));
    response
}

/// Adds where the thing is.
pub fn located<T>(mut response: Response<T>, path: &str) -> Response<T> {
    if let Ok(path) = MetadataValue::try_from(path) {
        response.metadata_mut().insert("location", path);
    }
    response
}
