//! Headers that were probably meant to protect a change. An unknown header is ignored, as HTTP has it, and a caller who misspells one of
//! these would believe to be protected. By REST they are passed on all the same, and refused where those of gRPC are.

use crate::error::Violations;
use crate::limits::answers::{COMPARED_NAME, MAX_COMPARED_NAME};

/// Finds misspelt guards of a request: a header, or a member of the request sent as a header.
struct Protecting {
    /// Its letters and digits.
    letters: &'static str,
    /// A part of the name that no other header has, so that a name with it means this one.
    stems: &'static [&'static str],
    /// The description for a name that means it.
    reported: &'static str,
}

const PROTECTING: [Protecting; 15] = [
    Protecting {
        letters: "idempotencykey",
        stems: &["idemp", "idemkey"],
        reported: "is unknown; did you mean `Idempotency-Key`?",
    },
    Protecting {
        letters: "ifmatch",
        stems: &["ifmatch"],
        reported: "is unknown; did you mean `If-Match`?",
    },
    Protecting {
        letters: "ifnonematch",
        stems: &["ifnonematch"],
        reported: "is unknown; did you mean `If-None-Match`?",
    },
    Protecting {
        letters: "ifunmodifiedsince",
        stems: &["ifunmodified"],
        reported: "is unknown; `If-Unmodified-Since` is not supported, and `If-Match` names the expected version",
    },
    Protecting {
        letters: "requesttimeout",
        stems: &["requesttimeout"],
        reported: "is unknown; did you mean `X-Request-Timeout`?",
    },
    Protecting {
        letters: "grpctimeout",
        stems: &["grpctimeout"],
        reported: "is unknown; did you mean `Grpc-Timeout`?",
    },
    Protecting {
        letters: "dryrun",
        stems: &["dryrun"],
        reported: "is unknown; a dry run is requested by `dryRun` in the query or, by gRPC, by `dry_run` in the message",
    },
    Protecting {
        letters: "expectedversion",
        stems: &["expectedversion"],
        reported: "is not a header; `expected_version` is a member of the requests that have one, and by REST `If-Match` says the same",
    },
    Protecting {
        letters: "expectedcount",
        stems: &["expectedcount"],
        reported: "is not a header; `expected_count` is a member of the requests that have one, by REST in the body",
    },
    Protecting {
        letters: "maxobjectspersecond",
        stems: &["maxobjectspersecond"],
        reported: "is not a header; `max_objects_per_second` is a member of the requests that have one, by REST in the body",
    },
    Protecting {
        letters: "maxobjects",
        stems: &["maxobjects"],
        reported: "is not a header; `max_objects` is a member of the requests that have one, by REST in the body",
    },
    Protecting {
        letters: "previewtoken",
        stems: &["previewtoken"],
        reported: "is not a header; `preview_token` is a member of the requests that have one, by REST in the body or in the query",
    },
    Protecting {
        letters: "graceperiod",
        stems: &["graceperiod"],
        reported: "is not a header; `grace_period` is a member of `RequestOffboarding`, by REST `gracePeriod` in the body of `POST /v1/offboarding/entities`",
    },
    Protecting {
        letters: "cleanreportwithin",
        stems: &["cleanreport"],
        reported: "is not a header; `clean_report_within` is a member of the requests that have one, by REST in the body",
    },
    Protecting {
        letters: "excludelist",
        stems: &["excludelist", "excludeuris"],
        reported: "is not a header; `exclude_list` is a member of the selection of a request, by REST in the body",
    },
];

/// Words that are members of requests with a large effect, and too common to be searched for within a name.
const WORDS: [(&[&str], &str); 2] = [
    (
        &["mode", "deletemode"],
        "is not a header; `mode` is a member of the requests that have one, by REST in the query",
    ),
    (
        &["tenant"],
        "is not a header; `tenant` is that of the key, and by REST part of the paths that have one",
    ),
];

/// A prefix of such a word that names its owner.
const OWNERS: [&str; 2] = ["x", "offboard"];

/// The headers that are spelt right, and one that responses have and a caller may send back.
const KNOWN: [&str; 8] = [
    "idempotency-key",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "x-request-timeout",
    "grpc-timeout",
    "idempotent-replayed",
];

/// A name of so many letters may have one wrong letter, one of twice as many two.
const LETTERS_FOR_A_SLIP: usize = 7;

/// The fault of a header with this name, in lower case, if it was probably meant to protect.
pub fn fault_of(name: &str) -> Option<&'static str> {
    if name.len() > MAX_COMPARED_NAME {
        COMPARED_NAME.reached();
        return None;
    }
    if KNOWN.contains(&name) {
        return None;
    }
    let is_part = |c: char| !c.is_ascii_alphanumeric();
    let all = name.replace(is_part, "");
    let letters = all.as_str();
    // A name may have others before its own, as `X-App-If-Macth` has: it is compared from the beginning of each of its words.
    let words = || name.split(is_part).filter(|word| !word.is_empty());
    let tails = || {
        words().scan(letters, |left, word| {
            let tail = *left;
            *left = tail.get(word.len()..)?;
            Some(tail)
        })
    };
    let is_meant = |protecting: &&Protecting| {
        protecting.stems.iter().any(|stem| letters.contains(stem))
            || tails().any(|tail| is_nearly(tail, protecting.letters))
    };
    if let Some(protecting) = PROTECTING.iter().find(is_meant) {
        return Some(protecting.reported);
    }
    let own: String = words().skip_while(|word| OWNERS.contains(word)).collect();
    WORDS.iter().find(|(names, _)| names.contains(&own.as_str())).map(|(_, reported)| *reported)
}

/// Returns whether one text is the other but for a few slips.
fn is_nearly(letters: &str, meant: &str) -> bool {
    let slips = meant.len() / LETTERS_FOR_A_SLIP;
    // Nearly every header is ruled out by its length or by this: a slip removes one letter and adds another at most.
    let apart = || (set_of(letters) ^ set_of(meant)).count_ones() as usize;
    letters.len().abs_diff(meant.len()) <= slips
        && apart() <= 2 * slips
        && strsim::damerau_levenshtein(letters, meant) <= slips
}

/// The letters of a text, each as a bit.
fn set_of(letters: &str) -> u32 {
    letters.bytes().filter(u8::is_ascii_lowercase).fold(0, |set, letter| set | 1 << (letter - b'a'))
}

/// The faults of headers of these names.
pub fn faults<'n>(names: impl Iterator<Item = &'n str>) -> Violations {
    let mut faults = Violations::new();
    for (name, reported) in names.filter_map(|name| Some((name, fault_of(name)?))) {
        faults.add(name, "unknown_header", reported);
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_was_probably_meant_to_protect_is_reported() {
        for (meant, names) in [
            (
                "Idempotency-Key",
                &[
                    "idempotence-key",
                    "idempotencykey",
                    "x-idempotency-key",
                    "idempotent-key",
                    "idempotency_key",
                    "idempotency",
                    "idempotency-id",
                    "x-idempotency-token",
                    "idempontency-key",
                    "idempetency-key",
                    "indempotency-key",
                    "idempotancy-key",
                    "impotency-key",
                    "stripe-idempotency-key",
                    "x-app-idempotency-key",
                    "app-idempotency-key",
                    "http-idempotency-key",
                    "request-idempotency-key",
                    "offboard-idempotency-key",
                    "app-idempontency-key",
                    "idempotency-key-bin",
                    "idem-key",
                    "idemp-key",
                ][..],
            ),
            (
                "If-Match",
                &[
                    "ifmatch",
                    "if_match",
                    "x-if-match",
                    "if-macth",
                    "if-mach",
                    "if-matches",
                    "if-match-version",
                    "app-if-match",
                    "x-app-if-macth",
                ],
            ),
            ("If-None-Match", &["if-none-mach", "ifnonematch", "x-if-none-match", "if_none_match"]),
            (
                "If-Unmodified-Since",
                &["ifunmodifiedsince", "if-unmodifed-since", "x-if-unmodified-since"],
            ),
            (
                "X-Request-Timeout",
                &[
                    "x-request-timeouts",
                    "request-timeout",
                    "xrequesttimeout",
                    "x_request_timeout",
                    "x-request-timeout-ms",
                ],
            ),
            ("Grpc-Timeout", &["grpc_timeout", "grpctimeout", "x-grpc-timeout", "grpc-timout"]),
            (
                "dryRun",
                &[
                    "dry-run",
                    "x-dry-run",
                    "dryrun",
                    "x-dryrun",
                    "dry_run",
                    "dry-runs",
                    "x-is-dry-run",
                    "dryrun-mode",
                ],
            ),
            (
                "expected_version",
                &[
                    "expected-version",
                    "x-expected-version",
                    "expected_version",
                    "app-expectedversion",
                    "expected-vesion",
                ],
            ),
            ("expected_count", &["expected-count", "x-expected-count", "expected_count"]),
            ("max_objects", &["max-objects", "x-max-objects", "max_objects", "max-objects-bin"]),
            ("preview_token", &["preview-token", "x-preview-token", "previewtoken"]),
            ("mode", &["mode", "x-mode", "x-offboard-mode", "delete-mode"]),
            ("tenant", &["tenant", "x-tenant", "offboard-tenant"]),
        ] {
            for name in names {
                assert!(
                    fault_of(name).is_some_and(|reported| reported.contains(&format!("`{meant}`"))),
                    "{name}"
                );
            }
        }
        let reported = faults(["accept", "x-dry-run", "if_match"].into_iter());
        assert_eq!(
            reported.as_slice().iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(),
            ["x-dry-run", "if_match"]
        );
    }

    /// The names of the IANA registry of HTTP fields that have anything in common with ours, and what proxies, meshes, browsers and gRPC libraries add.
    #[test]
    fn no_header_that_others_have_made_is_meant() {
        const OTHERS: &str = "accept accept-charset accept-datetime accept-encoding accept-language accept-patch accept-post accept-ranges age allow \
            alpn alt-svc alt-used apikey api-version apply-to-redirect-ref authentication-control authentication-info authorization baggage \
            cache-control cache-status capsule-protocol cdn-cache-control cdn-loop close connection content-digest content-disposition content-encoding \
            content-id content-language content-length content-location content-md5 content-range content-security-policy content-type cookie date \
            delta-base depth destination dnt dpop early-data etag expect expires forwarded from host http2-settings if if-modified-since if-none-match \
            if-range if-schedule-tag-match if-unmodified-since im keep-alive label last-event-id last-modified link location lock-token max-forwards \
            memento-datetime meter negotiate odata-version ordering-type origin overwrite position pragma prefer preference-applied priority \
            proxy-authorization proxy-connection range redirect-ref referer refresh repeatability-client-id repeatability-first-sent repeatability-request-id \
            repeatability-result repr-digest retry-after save-data schedule-reply schedule-tag sec-ch-ua sec-fetch-dest sec-fetch-mode sec-fetch-site \
            sec-gpc sec-websocket-key server server-timing signature signature-input slug soapaction status-uri sunset surrogate-capability te timeout \
            timing-allow-origin topic traceparent tracestate trailer transfer-encoding ttl upgrade upgrade-insecure-requests urgency user-agent variant-vary \
            vary via want-content-digest want-digest want-repr-digest warning x-accel-buffering x-access-key x-akamai-edgescape x-amz-cf-id x-amz-date \
            x-amzn-oidc-data x-amzn-request-id x-amzn-trace-id x-api-key x-api-version x-appengine-country x-arr-log-id x-azure-clientip x-azure-fdid \
            x-azure-ref x-b3-flags x-b3-parentspanid x-b3-sampled x-b3-spanid x-b3-traceid x-client-cert x-client-ip x-cloud-trace-context x-cluster-client-ip \
            x-consumer-id x-correlation-id x-csrf-token x-datadog-parent-id x-device-id x-envoy-attempt-count x-envoy-expected-rq-timeout-ms \
            x-envoy-external-address x-envoy-internal x-envoy-max-retries x-envoy-original-path x-envoy-peer-metadata x-envoy-retry-on \
            x-envoy-upstream-rq-timeout-ms x-envoy-upstream-rq-per-try-timeout-ms x-fastly-client-ip x-forwarded x-forwarded-by x-forwarded-client-cert \
            x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-proto x-forwarded-scheme x-forwarded-server x-forwarded-user \
            x-github-request-id x-google-cache-control x-http-method-override x-istio-attributes x-kong-request-id x-kubernetes-pf-flowschema-uid \
            x-matched-path x-method-override x-ms-client-request-id x-ms-request-id x-newrelic-id x-nginx-proxy x-original-forwarded-for x-original-host \
            x-original-uri x-original-url x-ot-span-context x-proxy-user-ip x-queue-start x-real-ip x-request-id x-request-start x-request-time \
            x-request-timestamp x-requested-with x-rewrite-url x-scheme x-sendfile-type x-ssl-cipher x-timer x-trace-id x-true-client-ip x-ua-device \
            x-uidh x-user-agent x-varnish x-vercel-id x-wap-profile x-xsrf-token cf-connecting-ip cf-ew-via cf-ipcountry cf-ray cf-visitor cf-worker \
            fastly-client-ip fastly-ff fly-client-ip fly-request-id true-client-ip client-ip akamai-origin-hop b3 uber-trace-id sentry-trace \
            x-goog-api-client x-goog-request-params x-goog-user-project grpc-accept-encoding grpc-encoding grpc-message-type grpc-previous-rpc-attempts \
            grpc-retry-pushback-ms grpc-tags-bin grpc-trace-bin grpc-status x-grpc-web matter-version idempotent-replayed x-grpc-test-echo-initial \
            ratelimit ratelimit-policy x-ratelimit-limit x-ratelimit-remaining x-ratelimit-reset offboard-realm match x-match test-run \
            connect-timeout-ms x-cosmos-timeout prefer-preview sec-fetch-user x-tenant-id x-ms-tenant-id x-scope-orgid x-goog-iam-authority-selector \
            x-amz-expected-bucket-owner access-control-max-age x-content-type-options if-none-match if-match idle-timeout x-max-age mode-switch";
        for name in OTHERS.split_ascii_whitespace().chain(KNOWN) {
            assert_eq!(fault_of(name), None, "{name}");
        }
        assert_eq!(
            fault_of(&format!("idempotency-key-{}", "x".repeat(1_000))),
            None,
            "long names are not looked at"
        );
    }
}
