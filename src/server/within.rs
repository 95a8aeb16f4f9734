//! Bodies around other bodies.

/// How long a body is, where that is how long the one within it is.
macro_rules! as_long_as {
    ($inner:ident) => {
        fn is_end_stream(&self) -> bool {
            http_body::Body::is_end_stream(&self.$inner)
        }

        fn size_hint(&self) -> http_body::SizeHint {
            http_body::Body::size_hint(&self.$inner)
        }
    };
}
pub(super) use as_long_as;
