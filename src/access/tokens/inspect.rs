//! What the service would make of a token, for a person.

use crate::access::tokens::check::check;
use crate::access::tokens::file;
use crate::access::tokens::report::{Fault, Reason, Report};
use crate::access::tokens::store::Options;
use crate::db::clock;
use crate::error::{Error, Result};

/// What the service would make of a token by the file of `options`: what it says, and every fault. Keys are fetched where the issuer has an address
/// of them. Fails if the file has faults.
pub async fn inspect(options: &Options, token: &str) -> Result<Report> {
    let (_, issuers) = file::load(&options.file, options.ages(), &[]);
    let issuers = issuers.map_err(Error::validation)?;
    let look = || check(token, &issuers, options.token_bytes, clock::now());
    let (report, issuer) = look();
    let Some((keys, address)) =
        issuer.as_ref().and_then(|issuer| Some((&issuer.keys, issuer.keys.address.as_ref()?)))
    else {
        return Ok(report);
    };
    let began = keys.begin();
    match address.fetch().await {
        Ok(set) => {
            keys.end(began, Some(set));
            Ok(look().0)
        }
        Err(reason) => {
            let mut report = report;
            report.faults.retain(|fault| fault.reason != Reason::NoKeys);
            let text = format!("cannot be checked: {address} {reason}");
            report.faults.push(Fault::new(Reason::NoKeys, "signature", text));
            Ok(report)
        }
    }
}
