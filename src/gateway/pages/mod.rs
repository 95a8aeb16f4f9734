//! The pages that the gateway serves itself, to everybody: the published document, a page to read and try it, and the reference of errors.
//!
//! These pages need no key and contain no data of anybody. They load only files of this binary: their security policy lets a browser ask
//! nobody else, and run no inline script.

mod errors;

use std::collections::HashMap;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::accept::{preferred, weighted};
use super::compression::{self, Coding};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";

/// Something to be read, ready to be sent.
#[derive(Debug)]
pub struct Page {
    media_type: &'static str,
    /// The body as it is kept.
    body: Bytes,
    /// The compression of the kept body.
    stored: Option<Coding>,
    /// The body in the other forms, each made when it is first asked for.
    forms: [OnceCell<Bytes>; 3],
    tag: HeaderValue,
    /// The security policy of a page of HTML.
    policy: Option<HeaderValue>,
}

/// All pages, by their path.
#[derive(Debug)]
pub struct Pages {
    plain: HashMap<String, Page>,
    /// Those that come as JSON and as HTML, whichever the caller would rather have.
    twofold: HashMap<String, (Page, Page)>,
}

/// A page that was found, and the path by which it is counted.
#[derive(Debug)]
pub struct Found<'p> {
    /// The page.
    pub page: &'p Page,
    /// Its path, with a variable for the code of an error.
    pub route: &'static str,
    /// True if another caller would get another form of it.
    pub varies: bool,
}

impl Pages {
    /// Makes the pages. `document` is the published document; `base` is the prefix of paths in links.
    pub fn new(document: &Value, base: &str) -> Pages {
        let text = serde_json::to_vec(document).expect("JSON values can always be written");
        let plain = HashMap::from([
            ("/openapi.json".to_owned(), Page::new(JSON, text)),
            ("/docs".to_owned(), Page::html(include_str!("docs.html").to_owned(), base)),
            ("/docs/start.js".to_owned(), Page::new(SCRIPT, include_str!("start.js"))),
            ("/docs/page.css".to_owned(), Page::new(CSS, include_str!("page.css"))),
            (
                "/docs/swagger-ui.js".to_owned(),
                Page::gzip(SCRIPT, include_bytes!("swagger_ui/swagger-ui-bundle.js.gz")),
            ),
            (
                "/docs/swagger-ui.css".to_owned(),
                Page::gzip(CSS, include_bytes!("swagger_ui/swagger-ui.css.gz")),
            ),
        ]);
        let twofold = errors::pages(base).into_iter().map(|(path, json, html)| {
            let json = serde_json::to_vec(&json).expect("JSON values can always be written");
            (path, (Page::new(JSON, json), Page::html(html, base)))
        });
        Pages { plain, twofold: twofold.collect() }
    }

    /// The page at a path, in the form that the caller would rather have: JSON, if it does not say.
    pub fn find(&self, path: &str, headers: &HeaderMap) -> Option<Found<'_>> {
        if let Some((path, page)) = self.plain.get_key_value(path) {
            let route = if path == "/openapi.json" { "/openapi.json" } else { "/docs" };
            return Some(Found { page, route, varies: false });
        }
        let (json, html) = self.twofold.get(path)?;
        let offers = [
            ("application/json", json),
            ("application/problem+json", json),
            ("*/*", json),
            ("text/html", html),
        ];
        let page = preferred(&weighted(headers, header::ACCEPT), &offers).copied().unwrap_or(json);
        Some(Found {
            page,
            route: if path == "/errors" { "/errors" } else { "/errors/{code}" },
            varies: true,
        })
    }
}

impl Page {
    fn new(media_type: &'static str, body: impl Into<Bytes>) -> Page {
        let body = body.into();
        let digest = Sha256::digest(&body);
        let tag = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
        // Weak: the same page may come compressed in one way or another.
        let tag =
            HeaderValue::try_from(format!("W/\"{tag}\"")).expect("digits are fit for a header");
        Page { media_type, body, stored: None, forms: Default::default(), tag, policy: None }
    }

    fn gzip(media_type: &'static str, body: &'static [u8]) -> Page {
        Page { stored: Some(Coding::Gzip), ..Page::new(media_type, body) }
    }

    fn html(text: String, base: &str) -> Page {
        Page { policy: Some(policy(base)), ..Page::new(HTML, text) }
    }

    /// The status, the headers and the body of a response to a reader.
    pub async fn answer(&self, request: &HeaderMap) -> (StatusCode, HeaderMap, Body) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ETAG, self.tag.clone());
        // To be kept, and asked for anew: a new version of the service has new pages.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if self.is_known(request) {
            return (StatusCode::NOT_MODIFIED, headers, Body::empty());
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        if let Some(policy) = &self.policy {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy.clone());
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            headers.insert(
                HeaderName::from_static("cross-origin-opener-policy"),
                HeaderValue::from_static("same-origin"),
            );
        }
        let is_worthwhile =
            self.stored.is_some() || self.body.len() as u64 >= compression::WORTHWHILE;
        let Some(coding) = Coding::accepted(request).filter(|_| is_worthwhile) else {
            return (StatusCode::OK, headers, Body::from(self.form(None).await));
        };
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        (StatusCode::OK, headers, Body::from(self.form(Some(coding)).await))
    }

    /// The body in a form. It is made once, on a thread that may be blocked: anyone may ask for pages, as often as they like.
    async fn form(&self, coding: Option<Coding>) -> Bytes {
        if coding == self.stored {
            return self.body.clone();
        }
        let place = match coding {
            None => 0,
            Some(Coding::Gzip) => 1,
            Some(Coding::Zstd) => 2,
        };
        let (body, stored) = (self.body.clone(), self.stored);
        let make = async move || {
            let made =
                tokio::task::spawn_blocking(move || compression::converted(&body, stored, coding))
                    .await;
            made.expect("bytes in memory are converted without a panic")
                .expect("a page is stored as it was compressed")
        };
        self.forms[place].get_or_init(make).await.clone()
    }

    fn is_known(&self, request: &HeaderMap) -> bool {
        let ours = self.tag.to_str().unwrap_or_default().trim_start_matches("W/");
        let known =
            request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        known
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .any(|tag| tag == "*" || tag.trim_start_matches("W/") == ours)
    }
}

/// The sources that a page may load: those of this server, and calls to the public URL.
fn policy(base: &str) -> HeaderValue {
    let origin = url::Url::parse(base).ok().map(|url| url.origin()).filter(url::Origin::is_tuple);
    let origin =
        origin.map(|origin| format!(" {}", origin.ascii_serialization())).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{origin}; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("an origin is fit for a header")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[tokio::test]
    async fn a_page_that_is_known_is_not_sent_again() {
        let page = Page::new(JSON, "{}");
        let (status, reported, _) = page.answer(&HeaderMap::new()).await;
        assert_eq!(status, 200);
        let again = HeaderMap::from_iter([(header::IF_NONE_MATCH, reported[header::ETAG].clone())]);
        assert_eq!(page.answer(&again).await.0, 304);
        assert_eq!(Page::new(JSON, "[]").answer(&again).await.0, 200);
    }

    #[tokio::test]
    async fn what_is_held_compressed_is_sent_as_the_caller_takes_it() {
        let pages = Pages::new(&Value::Null, "");
        let page = pages.find("/docs/swagger-ui.css", &HeaderMap::new()).unwrap().page;
        let (_, reported, body) = page.answer(&headers(header::ACCEPT_ENCODING, "br, gzip")).await;
        assert_eq!(reported[header::CONTENT_ENCODING], "gzip");
        let packed = body.collect().await.unwrap().to_bytes();
        let (_, reported, body) = page.answer(&headers(header::ACCEPT_ENCODING, "gzip;q=0")).await;
        assert!(!reported.contains_key(header::CONTENT_ENCODING));
        let plain = body.collect().await.unwrap().to_bytes();
        assert!(plain.len() > packed.len() && plain.starts_with(b".swagger-ui"));
    }

    #[tokio::test]
    async fn a_form_of_a_page_is_made_once() {
        let page = Page::new(JSON, vec![b'7'; 100_000]);
        for accepted in ["gzip", "zstd"] {
            let accepted = headers(header::ACCEPT_ENCODING, accepted);
            let mut sent = Vec::new();
            for _ in 0..2 {
                let (_, reported, body) = page.answer(&accepted).await;
                assert_eq!(reported[header::CONTENT_ENCODING], accepted[header::ACCEPT_ENCODING]);
                sent.push(body.collect().await.unwrap().to_bytes());
            }
            assert!(sent[0].len() < 1000);
            assert_eq!(sent[0].as_ptr(), sent[1].as_ptr(), "the same bytes, not made anew");
            let coding = Coding::accepted(&accepted);
            assert_eq!(compression::converted(&sent[0], coding, None).unwrap(), page.body);
        }
        assert_eq!(
            Page::new(JSON, "{}")
                .answer(&headers(header::ACCEPT_ENCODING, "gzip"))
                .await
                .1
                .get(header::CONTENT_ENCODING),
            None
        );
    }

    #[test]
    fn pages_may_run_no_script_of_their_own_and_call_nobody_else() {
        assert!(!policy("").to_str().unwrap().contains("unsafe"));
        let policy = policy("https://api.example.com:8443/removal");
        assert!(
            policy.to_str().unwrap().contains("connect-src 'self' https://api.example.com:8443;"),
            "{policy:?}"
        );
    }

    #[test]
    fn people_get_pages_and_programs_get_json() {
        let pages = Pages::new(&Value::Null, "");
        for (accept, media_type) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", HTML),
            ("application/json", JSON),
            ("*/*", JSON),
            ("application/json;q=0.1, text/html", HTML),
        ] {
            let found = pages.find("/errors/not_found", &headers(header::ACCEPT, accept)).unwrap();
            assert_eq!(
                (found.page.media_type, found.route),
                (media_type, "/errors/{code}"),
                "{accept}"
            );
        }
    }
}
