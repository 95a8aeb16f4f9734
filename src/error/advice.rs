//! Advice to callers about each failure.

use super::Code;

impl Code {
    /// When the code is given, in Markdown, as one paragraph.
    pub fn description_in_one_line(self) -> String {
        self.description().lines().map(str::trim).collect::<Vec<_>>().join(" ")
    }

    /// The advice to callers, in Markdown.
    pub const fn advice(self) -> &'static str {
        match self {
            Code::AuthenticationRequired => {
                "Send a key, as `Authorization: Bearer KEY` or as `apikey: KEY`, or a token where the service takes them, as `Authorization: Bearer TOKEN`."
            }
            Code::InvalidCredentials => {
                "Check that the key is complete, still valid and of the intended mode. Sending the same key again does not help. Of a token `offboard token check` tells every fault."
            }
            Code::AddressNotAllowed => {
                "Call from an address that is on the allow lists of the key and of its realm, or have them changed."
            }
            Code::PermissionDenied => "Use a key that has the scope `required_scope`.",
            Code::NotFound => {
                "Check the path and every id in it, and that the key is of the organisation and of the mode (`test`, `live`) that they belong to."
            }
            Code::MethodNotAllowed => {
                "By REST use one of the methods in the header `Allow`. By gRPC look at the port, and at the name of the method, and compress messages by gzip, zstd or not at \
                 all."
            }
            Code::ValidationFailed => {
                "Fix every fault in `errors`, then send the request again. The idempotency key is still free; of an import that had begun, what was \
                 written is not written again."
            }
            Code::InvalidFilter => {
                "Fix the filter at `position`, counted in characters from 0; `expected` lists what is allowed there."
            }
            Code::UnknownAttribute => {
                "Fix the names in the filter: `nearest` lists similar ones. Where the filter is right as it is, start with \
                 `allow_unknown_attributes`. The idempotency key is still free."
            }
            Code::SuspectValue => {
                "Write the values in the filter as they are compared: `meant` says how. Where the filter is right as it is, start with \
                 `allow_suspect_values`. The idempotency key is still free."
            }
            Code::UnknownValue => {
                "Fix the values in the filter: `nearest` lists what may have been meant. Where the filter is right as it is, start with \
                 `allow_suspect_values`. The idempotency key is still free."
            }
            Code::MissingExcludes => {
                "Fix the exclude list: see `missing`. Where these entities are removed already, start with `allow_missing_excludes`."
            }
            Code::RequirementsUnmet => {
                "Meet everything in `unmet`, each of which `errors` explains. A key with the scope `policies:write` changes the removal policy."
            }
            Code::NotCancelable => {
                "Nothing: the request has started or ended. `current_state` says which."
            }
            Code::InvalidStateTransition => {
                "Bring the resource into a state that allows the operation; `allowed_transitions` lists what its present state allows."
            }
            Code::StateConflict => {
                "Read the thing again, decide anew, and send the request with what it is like now."
            }
            Code::AlreadyExists => {
                "Use the thing that is there, or another id. The ids of what was soft-deleted stay taken."
            }
            Code::PortfolioNotEmpty => {
                "Detach the members first, or move them to another portfolio."
            }
            Code::CountMismatch => {
                "Check what the selection matches now, then start again with another selection or other guards."
            }
            Code::ReportRequired => {
                "Run `CheckConsistency`, fix by hand what it could not repair, and start again when it has ended."
            }
            Code::CallerExcluded => {
                "Add a network with `caller_address` to the list, or send `allow_lockout` where the list is right as it is. The idempotency key is still free."
            }
            Code::LimitReached => {
                "Remove what is not needed any more, or use another resource. `limit` is how many it may have."
            }
            Code::IdempotencyKeyReused => {
                "Use a new key for a new request. To learn what the first one did, send exactly the first one again."
            }
            Code::RefusedByDatabase => {
                "Do not send it again before whoever runs the service has seen to it; its log says why, under the request id."
            }
            Code::AnswerGone => "Do not send it again: it was done. Read what is there now.",
            Code::PayloadTooLarge => {
                "Send, or ask for, less at once: at most `limit_bytes` where that is given."
            }
            Code::UriTooLong => {
                "Send a shorter path and query: at most `limit_bytes`. Where the same can be said in a body, say it there."
            }
            Code::HeadersTooLarge => {
                "Send fewer and shorter headers: at most `limit_bytes` in all."
            }
            Code::OutOfRange => {
                "Treat what you received after `cursor` as undone, and continue from there. Without `cursor` start from the beginning, and compare with what \
                 you have."
            }
            Code::UnsupportedMediaType => {
                "Send JSON as `application/json`, and compress it by gzip, zstd or not at all. The headers of the response list what is taken."
            }
            Code::Canceled => {
                "Nothing was done of a call of one message. Of a stream, what has a response has taken effect."
            }
            Code::RateLimitExceeded => {
                "Wait for `retry_after` seconds, then send the request again. It was not done."
            }
            Code::DeadlineExceeded => {
                "Send the request again with the same idempotency key, and give it more time or less to do. It may or may not have taken effect."
            }
            Code::Unavailable => {
                "Wait for `retry_after` seconds, then send the request again with the same idempotency key."
            }
            Code::Internal => {
                "Send the request again with the same idempotency key. If it fails again, give the operator the request id: the log has the cause."
            }
        }
    }
}
