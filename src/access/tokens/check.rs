//! Whether a token is genuine, and what it says: the one way by which calls and `offboard token check` find out.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::access::tokens::issuer::Issuer;
use crate::access::tokens::jwks::Verdict;
use crate::access::tokens::jws::Jws;
use crate::access::tokens::keys::Known;
use crate::access::tokens::report::{Reason, Report};
use crate::limits::tokens::TOKEN_BYTES;

/// What is made of a token by these issuers at `now`: what it says, and every fault. One without a fault was signed with a key of its issuer. The
/// issuer is among the results if it is one of them, genuine or not.
pub fn check(
    token: &str,
    issuers: &[Arc<Issuer>],
    bytes_at_most: usize,
    now: DateTime<Utc>,
) -> (Report, Option<Arc<Issuer>>) {
    let mut report = Report::default();
    if token.len() > bytes_at_most {
        TOKEN_BYTES.reached();
        let text = format!("has {} bytes, of {bytes_at_most} at most", token.len());
        report.refuse(Reason::TooLarge, "token", text);
        return (report, None);
    }
    let jws = match Jws::parse(token) {
        Ok(jws) => jws,
        Err(faults) => {
            report.faults = faults;
            return (report, None);
        }
    };
    report.algorithm = Some(jws.algorithm.as_str());
    report.key_id = Some(jws.key_id.clone());
    let issuer = match jws.claims.get("iss") {
        Some(Value::String(name)) => issuers.iter().find(|issuer| issuer.name == *name),
        _ => {
            report.refuse(Reason::Issuer, "claims.iss", "must be a string");
            return (report, None);
        }
    };
    let Some(issuer) = issuer else {
        report.refuse(Reason::Issuer, "claims.iss", "is no issuer of the file");
        return (report, None);
    };
    issuer.read(&jws, now, &mut report);
    check_signature(issuer, &jws, &mut report);
    (report, Some(issuer.clone()))
}

fn check_signature(issuer: &Issuer, jws: &Jws<'_>, report: &mut Report) {
    let keys = match issuer.keys.known() {
        Known::Keys(keys) => keys,
        Known::NotYet => {
            let text = "cannot be checked: the keys of the issuer could not be fetched so far";
            return report.refuse(Reason::NoKeys, "signature", text);
        }
        Known::TooOld => {
            let text =
                "cannot be checked: the keys of the issuer could not be fetched for too long";
            return report.refuse(Reason::NoKeys, "signature", text);
        }
    };
    match keys.check(&jws.key_id, jws.algorithm, jws.signed, &jws.signature) {
        Verdict::Genuine => {}
        Verdict::Forged => {
            let text = "is not of the key that the token names";
            report.refuse(Reason::Signature, "signature", text);
        }
        Verdict::OtherAlgorithm(algorithm) => {
            let text =
                format!("names a key for {algorithm}, and the token is of {}", jws.algorithm);
            report.refuse(Reason::Key, "header.kid", text);
        }
        Verdict::NoKey => {
            report.refuse(Reason::UnknownKey, "header.kid", "is no key of the issuer");
        }
    }
}
