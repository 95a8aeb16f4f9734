//! The catalogue: every code of a failure, its status in gRPC and in HTTP, and the members of its problem document.

use std::fmt;

/// How an extension member of a problem document is written, where `ErrorInfo.metadata` has only text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A JSON string.
    Text,
    /// A JSON number; decimal in the metadata.
    Integer,
    /// A JSON array of strings; in the metadata as the text of that array.
    List,
}

macro_rules! catalogue {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $title:literal, $grpc:ident, $http:literal, [$($member:literal: $kind:ident),*];)+) => {
        /// The code of a failure. Its doc comment says when it is given.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Code {
            /// Every code, in the order of the catalogue.
            pub const ALL: &[Code] = &[$(Code::$variant),+];

            /// The code as problem documents spell it, in lower snake case.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$variant => $name),+ }
            }

            /// A short name for people; the `title` of a problem document.
            pub const fn title(self) -> &'static str {
                match self { $(Code::$variant => $title),+ }
            }

            /// The gRPC status code.
            pub const fn grpc(self) -> tonic::Code {
                match self { $(Code::$variant => tonic::Code::$grpc),+ }
            }

            /// The HTTP status.
            pub const fn http(self) -> u16 {
                match self { $(Code::$variant => $http),+ }
            }

            /// The extension members of the problem document and how each is written. Their values are in `ErrorInfo.metadata`.
            pub const fn members(self) -> &'static [(&'static str, MemberKind)] {
                match self { $(Code::$variant => &[$(($member, MemberKind::$kind)),*]),+ }
            }

            /// When the code is given, in Markdown.
            pub const fn description(self) -> &'static str {
                match self { $(Code::$variant => concat!($($doc, "\n"),+)),+ }
            }
        }
    };
}

catalogue! {
    /// The request carries no credential.
    AuthenticationRequired = "authentication_required", "Authentication required", Unauthenticated, 401, [];
    /// The credential is unknown, revoked, expired, malformed or of the wrong mode.
    InvalidCredentials = "invalid_credentials", "Invalid credentials", Unauthenticated, 401, [];
    /// The caller's address is not on the key's allow list, or not on that of its realm.
    AddressNotAllowed = "address_not_allowed", "Address not allowed", Unauthenticated, 401, [];
    /// The key lacks the scope that the call needs.
    PermissionDenied = "permission_denied", "Permission denied", PermissionDenied, 403, ["required_scope": Text];
    /// The resource does not exist, or is not visible to the caller: the two look the same. By REST also an unknown route.
    NotFound = "not_found", "Not found", NotFound, 404, [];
    /// By REST the route exists, but not with this method: `Allow` lists those that it has. By gRPC there is no such method, or it takes no messages that are
    /// compressed so, or this is the port of another protocol.
    MethodNotAllowed = "method_not_allowed", "Method not allowed", Unimplemented, 405, [];
    /// The request has faults. `errors` names every one of them.
    ValidationFailed = "validation_failed", "Validation failed", InvalidArgument, 400, [];
    /// The filter expression cannot be read. `position` counts characters from 0; `expected` says what could stand there.
    InvalidFilter = "invalid_filter", "Invalid filter", InvalidArgument, 400, ["position": Integer, "expected": List];
    /// The filter of a bulk delete names attributes that no entity has. A negated condition on one would be true for every entity.
    /// `attributes` are those, `nearest` similar ones that exist, `types` the types that were meant, where that is clear.
    UnknownAttribute = "unknown_attribute", "Unknown attribute", InvalidArgument, 400, ["attributes": List, "nearest": List, "types": List];
    /// The filter of a hard delete compares otherwise than it looks: as a text what looks like a number or a date, or with a value of another kind than
    /// entities have; or there was no time to find out. `values` are the values, or the whole conditions, `attributes` what they are compared with, `meant`
    /// how it may have to be written.
    SuspectValue = "suspect_value", "Suspect value", InvalidArgument, 400, ["values": List, "attributes": List, "meant": List];
    /// The filter of a hard delete denies values that nothing has, which exclude nobody. `values` are those, or the whole conditions, `paths` where they were
    /// looked for, `nearest` the ones that may have been meant.
    UnknownValue = "unknown_value", "Unknown value", InvalidArgument, 400, ["values": List, "paths": List, "nearest": List];
    /// The exclude list of a hard delete has ids of no entity, which exclude nothing. `missing_count` is how many, `missing` the first of them.
    MissingExcludes = "missing_excludes", "Missing excludes", FailedPrecondition, 409, ["missing_count": Integer, "missing": List];
    /// The realm's removal policy has requirements for such a removal that are not met. `unmet` names everything that it wants and does not find: `expected_count`,
    /// `max_objects`, `preview_token`, `clean_report`, `min_grace_period`.
    RequirementsUnmet = "requirements_unmet", "Requirements unmet", FailedPrecondition, 409,
        ["unmet": List, "matched_count": Integer, "max_objects": Integer];
    /// The offboarding request is not pending any more.
    NotCancelable = "not_cancelable", "Not cancelable", FailedPrecondition, 400, ["current_state": Text, "allowed_transitions": List];
    /// The state of the resource does not allow the operation: an entity that is onboarding or on hold, a task in a wrong status.
    InvalidStateTransition = "invalid_state_transition", "Invalid state transition", FailedPrecondition, 409,
        ["current_state": Text, "attempted_transition": Text, "allowed_transitions": List];
    /// The thing is not as the caller believed: in another portfolio, or at another version.
    StateConflict = "state_conflict", "State conflict", Aborted, 409,
        ["current_portfolio_id": Text, "expected_version": Integer, "current_version": Integer];
    /// The id is taken.
    AlreadyExists = "already_exists", "Already exists", AlreadyExists, 409, [];
    /// The portfolio still has members. `entity_count` is how many, for callers who may read that.
    PortfolioNotEmpty = "portfolio_not_empty", "Portfolio not empty", FailedPrecondition, 409, ["entity_count": Integer];
    /// A bulk delete matched another number of entities than its guards allow.
    CountMismatch = "count_mismatch", "Count mismatch", FailedPrecondition, 409,
        ["expected_count": Integer, "max_objects": Integer, "matched_count": Integer];
    /// A bulk delete asks for a clean report of consistency, and none is young enough, or something was found since.
    ReportRequired = "report_required", "Report required", FailedPrecondition, 409, ["clean_report_within": Text];
    /// The new list of networks does not contain the address that the call comes from, `caller_address`, so that its key could not be used from there any more.
    CallerExcluded = "caller_excluded", "Caller excluded", FailedPrecondition, 409, ["caller_address": Text];
    /// The thing has as many others as it may have.
    LimitReached = "limit_reached", "Limit reached", FailedPrecondition, 409, ["limit": Integer];
    /// A trigger that somebody has added to the database refuses the change, and would again. Nothing was changed.
    RefusedByDatabase = "refused_by_database", "Refused by the database", FailedPrecondition, 409, [];
    /// The idempotency key was used for another request before.
    IdempotencyKeyReused = "idempotency_key_reused", "Idempotency key reused", Aborted, 409, [];
    /// The call was done under this idempotency key, and its response is not there any more: something it showed was removed since, or it
    /// was too large to be kept and has changed.
    AnswerGone = "answer_gone", "Response erased", FailedPrecondition, 410, [];
    /// The request is larger than the service takes.
    PayloadTooLarge = "payload_too_large", "Payload too large", ResourceExhausted, 413, ["limit_bytes": Integer];
    /// The path and the query of the request are longer than the service takes.
    UriTooLong = "uri_too_long", "URI too long", ResourceExhausted, 414, ["limit_bytes": Integer];
    /// The headers of the request are too many, or larger than the service takes.
    HeadersTooLarge = "headers_too_large", "Headers too large", ResourceExhausted, 431, ["limit_bytes": Integer];
    /// The cursor or token refers to events that this database does not have: it was restored, or has failed over to a copy that lacked
    /// them. This is permanent. `cursor`, if present, is where to continue: events received after it no longer exist. Otherwise start from
    /// the beginning.
    OutOfRange = "out_of_range", "Out of range", OutOfRange, 410, ["parted_at": Integer, "cursor": Text];
    /// The body is of a media type that the route does not take.
    UnsupportedMediaType = "unsupported_media_type", "Unsupported media type", InvalidArgument, 415, [];
    /// Too many requests. `retry_after` is in seconds.
    RateLimitExceeded = "rate_limit_exceeded", "Rate limit exceeded", ResourceExhausted, 429, ["retry_after": Integer];
    /// The caller left before all of its request had come: only logs and metrics report it.
    Canceled = "canceled", "Canceled", Cancelled, 499, [];
    /// The caller's deadline, or the service's own, has passed.
    DeadlineExceeded = "deadline_exceeded", "Deadline exceeded", DeadlineExceeded, 504, [];
    /// The service cannot respond for now: database unreachable, queue full, shutting down. `retry_after` is in seconds. An import that ends
    /// because its replica shuts down reports how many of the first entities of its stream were received and their results; nothing was
    /// done with the others.
    Unavailable = "unavailable", "Unavailable", Unavailable, 503,
        ["retry_after": Integer, "received": Integer, "created": Integer, "existing": Integer, "failed": Integer];
    /// Something unexpected. The cause is in the service's log under the request id.
    Internal = "internal", "Internal error", Internal, 500, [];
}

/// The further members of `ErrorInfo.metadata` besides those of the code: values that the message names, which AIP-193 wants there as well.
pub const METADATA: &[(&str, &str)] = &[
    ("entity_id", "the entity that the thing belongs to"),
    (
        "fault_count",
        "how many faults the request has, where there is more than one; `BadRequest` names those that fit",
    ),
    ("field", "the field of the request in which the filter is"),
    ("key_id", "the key that the call is about"),
    ("kind", "the kind of the dependent"),
    ("lacking_scopes", "the scopes that the caller's key lacks, and so cannot give"),
    ("limit", "how many there may be"),
    ("limit_bytes", "how many bytes there may be"),
    ("limit_headers", "how many headers a request may have"),
    ("limit_records", "how many responses are kept for idempotency keys"),
    ("line", "the line of the body, from 1"),
    ("min_grace_period", "the least grace period, in seconds: `3600s`"),
    ("missing_count", "how many of the things that were asked for are missing"),
    (
        "missing_portfolio_count",
        "how many entities of the batch name a portfolio that does not exist",
    ),
    ("portfolio_id", "the portfolio that the call is about"),
    ("resource_name", "the id of what is missing, taken or in the way"),
    ("resource_type", "what that is: `entity`, `portfolio`, ..."),
    ("seconds", "how long the caller has sent nothing"),
    ("taken_count", "how many entities of the batch have an id that is taken"),
];

impl Code {
    /// The code as `ErrorInfo.reason` spells it, in upper snake case.
    pub fn reason(self) -> String {
        self.name().to_ascii_uppercase()
    }

    /// The code whose `ErrorInfo.reason` this is.
    pub fn from_reason(reason: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.name().eq_ignore_ascii_case(reason))
    }

    /// The code that says best what a status of a foreign origin, such as a failure of the gRPC library, means.
    pub fn from_grpc(code: tonic::Code) -> Code {
        match code {
            tonic::Code::InvalidArgument => Code::ValidationFailed,
            tonic::Code::NotFound => Code::NotFound,
            tonic::Code::Unimplemented => Code::MethodNotAllowed,
            tonic::Code::AlreadyExists => Code::AlreadyExists,
            tonic::Code::PermissionDenied => Code::PermissionDenied,
            tonic::Code::Unauthenticated => Code::InvalidCredentials,
            tonic::Code::FailedPrecondition => Code::InvalidStateTransition,
            tonic::Code::Aborted => Code::StateConflict,
            tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => Code::PayloadTooLarge,
            tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
            tonic::Code::Cancelled => Code::Canceled,
            tonic::Code::Unavailable => Code::Unavailable,
            _ => Code::Internal,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
