//! Pages as tables: CSV (RFC 4180) for callers who ask for `text/csv`.
//!
//! It is there for every `GET` that returns a page of rows and nothing else: one list of messages whose fields are single values, and
//! maybe `next_page_token`. The first line of the first page has the names of the columns, and no other page has them: pages that are put together
//! are one table. A header `Link` with `rel="next"` (RFC 8288) leads to the next page.
//! Values are written as in JSON, without their quotes; `null` is an empty cell.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header, request};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost_reflect::{DynamicMessage, Value};

use super::accept::listed;
use super::binding::{Binding, BodyRule, Rpc};
use super::json::{self, Cardinality, Field, Schema, Shape};
use super::percent::{self, UriPart};
use crate::error::Error;

/// The media type of a first page, with what a reader must know to read it.
const FIRST: &str = "text/csv; charset=utf-8; header=present";
/// The token of the next page.
const LATER: &str = "text/csv; charset=utf-8; header=absent";

const NEXT_PAGE_TOKEN: &str = "next_page_token";
const PAGE_TOKEN: &str = "page_token";

/// How the response to one request is written as a table.
#[derive(Debug)]
pub struct Table {
    /// The list of rows, by its place in the response.
    rows: usize,
    /// The type of a row, by its place in the schema.
    row: usize,
    /// The address of the request, as callers know it.
    path: String,
    /// The arguments of the request without its page token, and the name of that in the contract. None if there are no other pages.
    paging: Option<(Vec<String>, String)>,
    /// True if it is the first page, which names the columns.
    is_first: bool,
}

/// A page that is written.
pub struct Page {
    /// Its media type.
    pub media_type: &'static str,
    /// The table.
    pub text: String,
    /// Headers that belong to it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Table {
    /// The table that a request asks for; none if it asks for no table, or its response is not one.
    pub fn asked_for(
        request: &request::Parts,
        binding: &Binding,
        base_path: &str,
    ) -> Option<Table> {
        if !prefers_csv(&request.headers) {
            return None;
        }
        let (rows, row) = rows(binding)?;
        let schema = &binding.rpc.schema;
        let token =
            schema.message(binding.rpc.input).find(PAGE_TOKEN).map(|(_, field)| field.name.clone());
        let query = request.uri.query().unwrap_or_default();
        let is_first = token.as_ref().is_none_or(|token| !continues(query, token));
        let paging = token.map(|token| (others(query, &token), token));
        Some(Table {
            rows,
            row,
            path: format!("{base_path}{}", request.uri.path()),
            paging,
            is_first,
        })
    }

    /// Writes a response.
    pub fn write(&self, rpc: &Rpc, answer: &DynamicMessage) -> Result<Page, Error> {
        let (schema, field) = (&*rpc.schema, &rpc.schema.message(rpc.output).fields[self.rows]);
        let columns = &schema.message(self.row).fields;
        let mut text = String::new();
        if self.is_first {
            line(&mut text, columns.iter().map(|column| Cow::Borrowed(column.name.as_str())));
        }
        let rows = answer.get_field(&field.descriptor);
        for row in rows.as_list().unwrap_or_default().iter().filter_map(Value::as_message) {
            let cells = columns
                .iter()
                .map(|column| cell(schema, column, row))
                .collect::<Result<Vec<_>, _>>()?;
            line(&mut text, cells.into_iter().map(Cow::Owned));
        }
        let file = format!("attachment; filename=\"{}.csv\"", field.descriptor.name());
        let mut headers = vec![
            (header::CONTENT_DISPOSITION, header_value(file)?),
            (header::VARY, HeaderValue::from_static("accept")),
        ];
        let token = answer
            .get_field_by_name(NEXT_PAGE_TOKEN)
            .and_then(|token| token.as_str().map(str::to_owned))
            .unwrap_or_default();
        if let (Some((arguments, name)), false) = (&self.paging, token.is_empty()) {
            let token = format!("{name}={}", utf8_percent_encode(&token, NON_ALPHANUMERIC));
            let query: Vec<&str> =
                arguments.iter().map(String::as_str).chain([token.as_str()]).collect();
            headers.push((
                header::LINK,
                header_value(format!("<{}?{}>; rel=\"next\"", self.path, query.join("&")))?,
            ));
        }
        Ok(Page { media_type: if self.is_first { FIRST } else { LATER }, text, headers })
    }
}

fn header_value(text: String) -> Result<HeaderValue, Error> {
    HeaderValue::try_from(text).map_err(Error::internal)
}

/// Returns whether the responses of a route can be written as tables.
pub fn is_table(binding: &Binding) -> bool {
    rows(binding).is_some()
}

/// The list of rows and the type of a row, by their places, where a response is a page of them and nothing else.
fn rows(binding: &Binding) -> Option<(usize, usize)> {
    if binding.body != BodyRule::None
        || binding.rpc.server_streaming
        || binding.response_body.is_some()
    {
        return None;
    }
    let schema = &binding.rpc.schema;
    let mut found = None;
    for (index, field) in schema.message(binding.rpc.output).fields.iter().enumerate() {
        match (&field.cardinality, &field.shape) {
            (Cardinality::List, Shape::Message(row))
                if found.is_none() && is_flat(schema, *row) =>
            {
                found = Some((index, *row))
            }
            (Cardinality::Single { .. }, Shape::String)
                if field.descriptor.name() == NEXT_PAGE_TOKEN => {}
            _ => return None,
        }
    }
    found
}

/// Returns whether every field of a message type has one value.
fn is_flat(schema: &Schema, message: usize) -> bool {
    let single = |field: &Field| {
        let is_value = !matches!(
            field.shape,
            Shape::Message(_) | Shape::Struct | Shape::Value | Shape::ListValue
        );
        is_value && matches!(field.cardinality, Cardinality::Single { .. })
    };
    schema.message(message).fields.iter().all(single)
}

/// Returns whether an argument of a query is the page token, which has this name.
fn is_token(argument: &str, name: &str) -> bool {
    let given = argument.split('=').next().unwrap_or_default();
    percent::decode(given, UriPart::Query).is_ok_and(|given| given == name || given == PAGE_TOKEN)
}

/// The arguments of a query but for the page token.
fn others(query: &str, name: &str) -> Vec<String> {
    query
        .split('&')
        .filter(|argument| !argument.is_empty() && !is_token(argument, name))
        .map(str::to_owned)
        .collect()
}

/// Returns whether a query asks for a page behind the first.
fn continues(query: &str, name: &str) -> bool {
    query.split('&').any(|argument| {
        is_token(argument, name)
            && argument.split_once('=').is_some_and(|(_, token)| !token.is_empty())
    })
}

/// Returns whether CSV is asked for, and more so than JSON (RFC 9110, section 12.5.1).
fn prefers_csv(headers: &HeaderMap) -> bool {
    let accepted: Vec<_> = listed(headers, header::ACCEPT).collect();
    let of = |media_type: &str| {
        accepted
            .iter()
            .find(|(range, _)| range == media_type)
            .map(|(_, weight)| weight.unwrap_or_default())
    };
    let weight =
        |types: &[&str]| types.iter().find_map(|media_type| of(media_type)).unwrap_or_default();
    weight(&["text/csv"]) > weight(&["application/json", "application/*", "*/*"])
}

/// The text of a cell.
fn cell(schema: &Schema, column: &Field, row: &DynamicMessage) -> Result<String, Error> {
    let mut written = Vec::new();
    json::encode_field(schema, column, row, &mut written).map_err(Error::internal)?;
    Ok(match serde_json::from_slice(&written).map_err(Error::internal)? {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => harmless(text),
        other => other.to_string(),
    })
}

/// Text that a spreadsheet would take for a formula, after an apostrophe: an id such as `-1+cmd|…` must not run on the machine that opens
/// the file. Spreadsheets skip invisible characters, and take the signs of East Asian keyboards, of full width, as well. Numbers are
/// written as such and stay as they are.
fn harmless(text: String) -> String {
    const SIGNS: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
    let shown = text.trim_start_matches(is_not_shown);
    if shown.starts_with(SIGNS) || text.starts_with(char::is_control) {
        format!("'{text}")
    } else {
        text
    }
}

fn is_not_shown(character: char) -> bool {
    let zero_width =
        matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}');
    character.is_whitespace() || character.is_control() || zero_width
}

/// Returns whether a cell would be taken apart, or lose its blanks, without quotes. Semicolons and tabs part cells where a comma parts
/// decimals.
fn needs_quotes(cell: &str) -> bool {
    cell.contains(['"', ',', ';', '\t', '\r', '\n'])
        || cell.starts_with(is_not_shown)
        || cell.ends_with(is_not_shown)
}

/// A line of cells; in quotes where their text would be taken apart.
fn line<'c>(text: &mut String, cells: impl Iterator<Item = Cow<'c, str>>) {
    for (count, cell) in cells.enumerate() {
        if count > 0 {
            text.push(',');
        }
        if needs_quotes(&cell) {
            text.push('"');
            text.push_str(&cell.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(&cell);
        }
    }
    text.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(value: &'static str) -> bool {
        prefers_csv(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]))
    }

    #[test]
    fn csv_is_for_those_who_want_it_more_than_json() {
        for wanted in [
            "text/csv",
            "TEXT/CSV;charset=utf-8",
            "text/csv, */*;q=0.1",
            "application/json;q=0.5, text/csv;q=0.8",
            "text/csv, application/json;q=0",
        ] {
            assert!(accepts(wanted), "{wanted}");
        }
        for not in [
            "*/*",
            "",
            "text/*",
            "application/json",
            "application/json, text/csv",
            "text/csv;q=0",
            "text/csv;q=0.5, */*",
            "text/csv;q=x",
        ] {
            assert!(!accepts(not), "{not}");
        }
        assert!(!prefers_csv(&HeaderMap::new()));
    }

    #[test]
    fn text_that_could_be_a_formula_is_not_one() {
        for formula in [
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\tx",
            "\rx",
            "\nx",
            "＝1",
            "＋1",
            "－1",
            "＠x",
            "  =1",
            "\u{feff}=1",
            "\n=1",
            "\u{a0}-1",
        ] {
            assert_eq!(harmless(formula.to_owned()), format!("'{formula}"), "{formula:?}");
        }
        for text in ["a=1", " a-1", "", "1-1", "'=1"] {
            assert_eq!(harmless(text.to_owned()), text);
        }
    }

    #[test]
    fn cells_are_quoted_where_they_need_it() {
        let mut text = String::new();
        let cells =
            ["a", "b,c", "say \"x\"", "two\r\nlines", "", " edge", "d;e", "f\tg", "h\u{a0}"];
        line(&mut text, cells.into_iter().map(Cow::Borrowed));
        assert_eq!(
            text,
            "a,\"b,c\",\"say \"\"x\"\"\",\"two\r\nlines\",,\" edge\",\"d;e\",\"f\tg\",\"h\u{a0}\"\r\n"
        );
    }

    #[test]
    fn the_other_arguments_of_a_query_stay_as_they_are() {
        assert_eq!(
            others("pageSize=2&pageToken=x&a=%20b&page%54oken=y", "pageToken"),
            ["pageSize=2", "a=%20b"]
        );
        assert!(others("", "pageToken").is_empty());
    }

    #[test]
    fn a_page_with_a_token_is_not_the_first() {
        for query in ["pageToken=x", "a=1&page_token=x", "page%54oken=x"] {
            assert!(continues(query, "pageToken"), "{query}");
        }
        for query in ["", "pageToken=", "pageToken", "token=x"] {
            assert!(!continues(query, "pageToken"), "{query}");
        }
    }
}
