//! The file of `--auth-file`: the issuers, and the files that it names. `docs/tokens.md` describes its members.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::TimeDelta;
use http::Uri;
use sha2::{Digest, Sha256};

use crate::access::ApiVersion;
use crate::access::scope::Scope;
use crate::access::tokens::fetch::Address;
use crate::access::tokens::issuer::{Issuer, Roles, Said};
use crate::access::tokens::jwks::{Algorithm, KeySet};
use crate::access::tokens::jws::kind_of;
use crate::access::tokens::keys::{Ages, IssuerKeys};
use crate::access::tokens::members::{Faults, Members, document};
use crate::db::{Mode, id};
use crate::error::Violations;
use crate::limits::tokens::{AUTH_FILE_BYTES, AUTH_FILE_BYTES_AT_MOST, ISSUERS, ISSUERS_AT_MOST};

/// How many seconds the clock of an issuer may be from ours where the file does not say.
const LEEWAY: i64 = 30;
/// How many it may be at most.
const LEEWAY_AT_MOST: i64 = 300;
/// The members of an issuer.
const MEMBERS: &[&str] = &[
    "issuer",
    "audience",
    "jwks_url",
    "jwks_file",
    "jwks_ca_file",
    "insecure_http",
    "algorithms",
    "leeway",
    "type",
    "org",
    "mode",
    "principal",
    "scopes",
    "roles",
    "api_version",
    "make_realms",
];

/// The files that were read, and what they had: to notice when one changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Vec<(PathBuf, Option<[u8; 32]>)>);

impl Seen {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let read = read(path);
        let digest = read.as_ref().ok().map(|bytes| Sha256::digest(bytes).into());
        self.0.push((path.to_owned(), digest));
        read
    }

    /// Returns whether all of them still are as they were.
    pub fn is_current(&self) -> bool {
        let mut again = Seen::default();
        for (path, _) in &self.0 {
            // What cannot be read is noticed by its missing digest.
            let _ = again.read(path);
        }
        again == *self
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(AUTH_FILE_BYTES_AT_MOST + 1).read_to_end(&mut text))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > AUTH_FILE_BYTES_AT_MOST {
        AUTH_FILE_BYTES.reached();
        return Err(format!("has more than {AUTH_FILE_BYTES_AT_MOST} bytes"));
    }
    Ok(text)
}

/// What was read, and the issuers, or all that is wrong.
pub type Loaded = (Seen, Result<Vec<Arc<Issuer>>, Violations>);

/// Reads the file and those that it names. Keys that were fetched for an issuer of `before` are kept where their address is the same.
pub fn load(path: &Path, ages: Ages, before: &[Arc<Issuer>]) -> Loaded {
    let mut seen = Seen::default();
    let fail = |seen: Seen, fault: String| {
        let mut faults = Violations::new();
        faults.add("--auth-file", "invalid", fault);
        (seen, Err(faults))
    };
    let text = match seen.read(path).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => return fail(seen, "is not text in UTF-8".to_owned()),
        Err(fault) => return fail(seen, fault),
    };
    let mut faults = Faults::of(&text);
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut reader = Reader { folder, ages, before, seen: &mut seen };
    let issuers = reader.issuers(&text, &mut faults);
    match faults.into_violations() {
        faults if faults.is_empty() => (seen, Ok(issuers)),
        faults => (seen, Err(faults)),
    }
}

struct Reader<'r> {
    folder: PathBuf,
    ages: Ages,
    before: &'r [Arc<Issuer>],
    seen: &'r mut Seen,
}

impl Reader<'_> {
    fn issuers(&mut self, text: &str, faults: &mut Faults<'_>) -> Vec<Arc<Issuer>> {
        let Some(table) = document(text, faults) else { return Vec::new() };
        let top = Members::top(&table);
        top.check_names(&["issuer"], faults);
        let tables = top.tables("issuer", faults);
        if tables.len() > ISSUERS_AT_MOST {
            ISSUERS.reached();
            let text = format!("has {} issuers, of {ISSUERS_AT_MOST} at most", tables.len());
            faults.add(top.start(), text);
            return Vec::new();
        }
        let mut issuers: Vec<Arc<Issuer>> = Vec::new();
        for members in &tables {
            let Some(issuer) = self.issuer(members, faults) else { continue };
            if issuers.iter().any(|other| other.name == issuer.name) {
                let fault = format!("names {:?}, which another issuer is named", issuer.name);
                members.refuse("issuer", &fault, faults);
            }
            issuers.push(Arc::new(issuer));
        }
        issuers
    }

    /// One issuer. All its members are read before it is given up.
    fn issuer(&mut self, members: &Members<'_>, faults: &mut Faults<'_>) -> Option<Issuer> {
        members.check_names(MEMBERS, faults);
        let name = members.required("issuer", faults);
        let audiences = members.strings("audience", true, faults);
        let keys = self.keys(members, name.as_deref().unwrap_or_default(), faults);
        let algorithms = members.each("algorithms", faults, |name| {
            let names = Algorithm::ALL.map(Algorithm::as_str).join("`, `");
            Algorithm::parse(name)
                .ok_or_else(|| format!("must be of `{names}`, and {name:?} is not"))
        });
        if algorithms.as_ref().is_none_or(Vec::is_empty) && !members.has_fault("algorithms", faults)
        {
            members.refuse("algorithms", "must be given: an array of how the issuer signs", faults);
        }
        let leeway = members.number("leeway", 0..=LEEWAY_AT_MOST, faults).unwrap_or(LEEWAY);
        let org = members.said("org", faults, |org| {
            let fault = "must be 1 to 128 characters from A-Z a-z 0-9 . _ ~ -, and not `.` or `..`";
            id::is_new_id(org).then(|| org.to_owned()).ok_or_else(|| fault.to_owned())
        });
        let mode = members.said("mode", faults, |name| {
            Mode::parse(name).ok_or_else(|| "must be `test` or `live`".to_owned())
        });
        for (name, given) in [("org", org.is_some()), ("mode", mode.is_some())] {
            if !given && !members.has(name) {
                let fault = "must be given: a string, or `{ claim = \"…\" }`";
                members.refuse(name, fault, faults);
            }
        }
        let principal = members.said("principal", faults, |name| Ok(name.to_owned()));
        let principal = match principal {
            None if !members.has("principal") => members.subject(),
            principal => principal,
        };
        let scopes = self.scopes(members, faults);
        let roles = roles(members, faults);
        if !members.has("scopes") && !members.has("roles") {
            members.refuse("scopes", "or `roles` must be given: what the tokens allow", faults);
        }
        let api_version = members.string("api_version", faults).and_then(|text| {
            let version = ApiVersion::parse(&text).ok();
            if version.is_none() {
                members.refuse("api_version", "must be a version of the API", faults);
            }
            version
        });
        let makes_realms =
            members.truth("make_realms", faults).unwrap_or(matches!(org, Some(Said::Always(_))));
        let kind = members.string("type", faults).map(|kind| kind_of(&kind));
        Some(Issuer {
            name: name?,
            audiences: audiences?,
            keys: keys?,
            algorithms: algorithms?,
            leeway: TimeDelta::seconds(leeway),
            kind,
            org: org?,
            mode: mode?,
            principal: principal?,
            scopes,
            roles,
            api_version: api_version.unwrap_or_else(ApiVersion::latest),
            makes_realms,
        })
    }

    fn scopes(&self, members: &Members<'_>, faults: &mut Faults<'_>) -> Option<Said<Vec<Scope>>> {
        if members.is_table("scopes") {
            return members.said("scopes", faults, |_| Ok(Vec::new()));
        }
        members.each("scopes", faults, scope).map(Said::Always)
    }

    /// The keys of the issuer: of a file, or at an address.
    fn keys(
        &mut self,
        members: &Members<'_>,
        issuer: &str,
        faults: &mut Faults<'_>,
    ) -> Option<Arc<IssuerKeys>> {
        let (url, file) = (members.string("jwks_url", faults), members.string("jwks_file", faults));
        let ca_file = members.string("jwks_ca_file", faults);
        let insecure = members.truth("insecure_http", faults).unwrap_or(false);
        if members.has("jwks_url") == members.has("jwks_file") {
            members.refuse("jwks_url", "or `jwks_file` must be given, and not both", faults);
            return None;
        }
        for name in ["jwks_ca_file", "insecure_http"] {
            if file.is_some() && members.has(name) {
                members.refuse(name, "is for a `jwks_url`, and there is none", faults);
            }
        }
        if let Some(file) = file {
            let read =
                self.seen.read(&self.folder.join(&file)).and_then(|text| KeySet::parse(&text));
            return match read {
                Ok(keys) if keys.is_empty() => {
                    let passed_over = keys.passed_over.join("; ");
                    members.refuse(
                        "jwks_file",
                        &format!("has no key that can be used: {passed_over}"),
                        faults,
                    );
                    None
                }
                Ok(keys) => Some(
                    self.kept(issuer, None).unwrap_or_else(|| Arc::new(IssuerKeys::of_file(keys))),
                ),
                Err(fault) => {
                    members.refuse("jwks_file", &fault, faults);
                    None
                }
            };
        }
        let uri = match uri(&url?, insecure) {
            Ok(uri) => uri,
            Err(fault) => {
                members.refuse("jwks_url", fault, faults);
                return None;
            }
        };
        let is_plain = uri.scheme_str() == Some("http");
        if is_plain && members.has("jwks_ca_file") {
            members.refuse("jwks_ca_file", "is for an https URL, and `jwks_url` is none", faults);
        }
        if !is_plain && insecure {
            members.refuse("insecure_http", "is for an http URL, and `jwks_url` is none", faults);
        }
        let roots = ca_file.map(|file| self.seen.read(&self.folder.join(&file))).transpose();
        let (at, address) = match roots {
            Ok(roots) => {
                let at = if roots.is_some() { "jwks_ca_file" } else { "jwks_url" };
                (at, Address::new(uri, roots))
            }
            Err(fault) => ("jwks_ca_file", Err(fault)),
        };
        match address {
            Ok(address) => {
                let kept = self.kept(issuer, Some(&address));
                Some(kept.unwrap_or_else(|| Arc::new(IssuerKeys::at(address, self.ages))))
            }
            Err(fault) => {
                members.refuse(at, &fault, faults);
                None
            }
        }
    }

    /// What was fetched for the issuer at this address, if the file had it before.
    fn kept(&self, issuer: &str, address: Option<&Address>) -> Option<Arc<IssuerKeys>> {
        let address = address?;
        let before = self.before.iter().find(|before| before.name == issuer)?;
        (before.keys.address.as_ref() == Some(address)).then(|| before.keys.clone())
    }
}

fn scope(name: &str) -> Result<Scope, String> {
    Scope::parse(name).ok_or_else(|| {
        let near = crate::error::nearest(name, Scope::ALL.iter().map(|scope| scope.as_str()));
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        format!("must be scopes, and {name:?} is none{hint}")
    })
}

fn roles(members: &Members<'_>, faults: &mut Faults<'_>) -> Option<Roles> {
    let roles = members.table("roles", faults)?;
    roles.check_names(&["claim", "scopes"], faults);
    let claim = roles.claim("claim", faults);
    let given = roles.table("scopes", faults);
    if given.is_none() && !roles.has("scopes") {
        roles.refuse(
            "scopes",
            "must be given: a table of roles, each with an array of scopes",
            faults,
        );
    }
    let given = given?;
    let read = given.names().map(|role| Some((role.to_owned(), given.each(role, faults, scope)?)));
    let scopes = read.collect::<Vec<_>>();
    Some(Roles { claim: claim?, scopes: scopes.into_iter().collect::<Option<_>>()? })
}

/// The address of keys, if it is one that may be used.
fn uri(text: &str, insecure: bool) -> Result<Uri, &'static str> {
    const FORM: &str = "must be as https://login.example.com/keys";
    let url = url::Url::parse(text).map_err(|_| FORM)?;
    let has_slashes = text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'));
    if !has_slashes || !url.has_host() || url.fragment().is_some() {
        return Err(FORM);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must have no user and no password: keys are public");
    }
    match (url.scheme(), insecure) {
        ("https", _) | ("http", true) => url.as_str().parse().map_err(|_| FORM),
        ("http", false) => Err(
            "must begin with https: whoever can change a response on the way makes tokens; `insecure_http = true` takes it nevertheless",
        ),
        _ => Err(FORM),
    }
}
