//! The reference of errors, made of the catalogue: where the `type` of a problem document leads.

use serde_json::{Value, json};

use crate::error::{Code, MemberKind};
use crate::gateway::openapi::grpc_name;

/// Each page: its path, itself as JSON and as HTML.
pub fn pages(base: &str) -> Vec<(String, Value, String)> {
    let mut pages: Vec<_> = Code::ALL
        .iter()
        .map(|code| (format!("/errors/{code}"), json_of(*code, base), html_of(*code)))
        .collect();
    let list: Vec<Value> = Code::ALL.iter().map(|code| json_of(*code, base)).collect();
    pages.push(("/errors".to_owned(), json!({"errors": list}), html_of_all()));
    pages
}

fn json_of(code: Code, base: &str) -> Value {
    let members =
        code.members().iter().map(|(name, kind)| json!({"name": name, "type": kind_name(*kind)}));
    json!({
        "type": format!("{base}/errors/{code}"),
        "code": code.name(),
        "title": code.title(),
        "description": code.description_in_one_line(),
        "advice": code.advice(),
        "http_status": code.http(),
        "grpc_status": grpc_name(code.grpc()),
        "members": members.collect::<Vec<_>>(),
    })
}

fn kind_name(kind: MemberKind) -> &'static str {
    match kind {
        MemberKind::Text => "string",
        MemberKind::Integer => "integer",
        MemberKind::List => "array of strings",
    }
}

fn html_of(code: Code) -> String {
    let up = "<p><a href=\"../errors\">All errors</a></p>\n";
    page(code.title(), "..", &format!("<h1>{}</h1>\n{}{up}", escaped(code.title()), account(code)))
}

fn html_of_all() -> String {
    let mut body = String::from(
        "<h1>Errors</h1>\n<p>Every failure has one of these codes, by REST and by gRPC.</p>\n",
    );
    for code in Code::ALL {
        body.push_str(&format!(
            "<section id=\"{code}\">\n<h2><a href=\"errors/{code}\">{}</a></h2>\n{}</section>\n",
            escaped(code.title()),
            account(*code)
        ));
    }
    page("Errors", ".", &body)
}

/// The description of a code.
fn account(code: Code) -> String {
    let mut rows = format!(
        "<dl>\n<dt>Code</dt><dd><code>{code}</code></dd>\n<dt>HTTP</dt><dd>{}</dd>\n<dt>gRPC</dt><dd>{}</dd>\n",
        code.http(),
        grpc_name(code.grpc())
    );
    if !code.members().is_empty() {
        let members = code
            .members()
            .iter()
            .map(|(name, kind)| format!("<code>{name}</code> ({})", kind_name(*kind)));
        rows.push_str(&format!(
            "<dt>Members</dt><dd>{}</dd>\n",
            members.collect::<Vec<_>>().join(", ")
        ));
    }
    format!(
        "<p>{}</p>\n<p><strong>What to do:</strong> {}</p>\n{rows}</dl>\n",
        marked(&code.description_in_one_line()),
        marked(code.advice())
    )
}

/// `top` leads from the page to the root of the service.
fn page(title: &str, top: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<link rel=\"stylesheet\" href=\"{top}/docs/page.css\">\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escaped(title)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Markdown's `code`, the only mark that the catalogue uses, as HTML.
fn marked(text: &str) -> String {
    let parts = escaped(text);
    let parts = parts.split('`').enumerate().map(|(count, part)| {
        if count % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_and_a_place_in_the_list() {
        let pages = pages("https://api.example.com");
        assert_eq!(pages.len(), Code::ALL.len() + 1);
        let (path, json, html) = &pages[3];
        assert_eq!(
            (path.as_str(), json["type"].as_str()),
            ("/errors/permission_denied", Some("https://api.example.com/errors/permission_denied"))
        );
        assert_eq!(
            (json["http_status"].as_u64(), json["grpc_status"].as_str()),
            (Some(403), Some("PERMISSION_DENIED"))
        );
        assert_eq!(json["members"], json!([{"name": "required_scope", "type": "string"}]));
        assert!(html.contains("<code>required_scope</code>") && html.contains("What to do"));
        let (_, json, html) = pages.last().unwrap();
        for code in Code::ALL {
            assert!(html.contains(&format!("id=\"{code}\"")));
            assert!(!code.advice().is_empty());
        }
        assert_eq!(json["errors"].as_array().unwrap().len(), Code::ALL.len());
    }

    #[test]
    fn text_is_never_read_as_html() {
        assert_eq!(marked("`a<b>` & c"), "<code>a&lt;b&gt;</code> &amp; c");
    }
}
