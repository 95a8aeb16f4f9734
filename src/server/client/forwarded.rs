//! Reads the headers in which proxies say where a request comes from, from the last word to the first. Pure.

use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;
use http::header::{GetAll, ValueIter};

use crate::limits::proxies::{
    FORWARDED_BYTES, FORWARDED_BYTES_AT_MOST, FORWARDED_HOPS, FORWARDED_HOPS_AT_MOST,
};

/// Whom a proxy says that it was called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// This address.
    Address(IpAddr),
    /// It does not say, or nobody can read it.
    Unknown,
}

impl Hop {
    /// Reads a node (RFC 7239, section 6), or what stands in `X-Forwarded-For`: an address, with or without a port.
    fn read(text: &str) -> Hop {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Hop::Address(address.to_canonical());
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Hop::Address(address.ip().to_canonical());
        }
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((name, port)) if name.contains(':') => (name, port),
                _ => return Hop::Unknown,
            },
            None => match text.find(':') {
                Some(colon) => text.split_at(colon),
                None => return Hop::Unknown,
            },
        };
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_node_port);
        match name.parse::<IpAddr>() {
            Ok(address) if is_port => Hop::Address(address.to_canonical()),
            _ => Hop::Unknown,
        }
    }
}

/// Returns whether it is the port of a node: a number of up to five digits, or an obfuscated one.
fn is_node_port(text: &str) -> bool {
    let is_obfuscated = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match text.strip_prefix('_') {
        Some(name) => is_obfuscated(name),
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Counts what is read of a header. Past its bounds nothing more is believed.
struct Bounds {
    bytes: usize,
    hops: usize,
}

impl Bounds {
    fn new() -> Self {
        Bounds { bytes: FORWARDED_BYTES_AT_MOST, hops: FORWARDED_HOPS_AT_MOST }
    }

    fn allow_bytes(&mut self, bytes: usize) -> bool {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(0);
        if left.is_none() {
            FORWARDED_BYTES.reached();
        }
        left.is_some()
    }

    fn allow_hop(&mut self) -> bool {
        let left = self.hops.checked_sub(1);
        self.hops = left.unwrap_or(0);
        if left.is_none() {
            FORWARDED_HOPS.reached();
        }
        left.is_some()
    }
}

/// The hops of `X-Forwarded-For`, the last first: addresses with commas between them, on one line or several. It ends with the first that is
/// not known.
pub fn x_forwarded_for(lines: GetAll<'_, HeaderValue>) -> impl Iterator<Item = Hop> {
    let mut bounds = Bounds::new();
    let entries = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    entries.filter_map(move |entry| {
        // Each stands with its comma, or the end of its line.
        if !bounds.allow_bytes(entry.len() + 1) {
            return Some(Hop::Unknown);
        }
        let entry = trim(entry);
        // Lists may have empty elements (RFC 9110, section 5.6.1.2).
        if entry.is_empty() {
            return None;
        }
        if !bounds.allow_hop() {
            return Some(Hop::Unknown);
        }
        Some(std::str::from_utf8(entry).map_or(Hop::Unknown, Hop::read))
    })
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The hops of `Forwarded`, the last first. A line that is malformed anywhere is one hop that is not known: where a quotation mark is not closed,
/// nobody can tell what is a proxy's word and what is its caller's.
pub fn forwarded(lines: GetAll<'_, HeaderValue>) -> impl Iterator<Item = Hop> {
    Forwarded { lines: lines.iter(), line: Vec::new(), bounds: Bounds::new() }
}

struct Forwarded<'h> {
    lines: ValueIter<'h, HeaderValue>,
    /// What is left of the line in hand.
    line: Vec<Hop>,
    bounds: Bounds,
}

impl Iterator for Forwarded<'_> {
    type Item = Hop;

    fn next(&mut self) -> Option<Hop> {
        while self.line.is_empty() {
            let line = self.lines.next_back()?;
            if !self.bounds.allow_bytes(line.len()) {
                return Some(Hop::Unknown);
            }
            self.line = elements(line.as_bytes()).unwrap_or_else(|| vec![Hop::Unknown]);
        }
        let hop = self.line.pop();
        if self.bounds.allow_hop() { hop } else { Some(Hop::Unknown) }
    }
}

/// The hops of a line in their order; none if it is malformed. Empty elements are passed over.
fn elements(line: &[u8]) -> Option<Vec<Hop>> {
    let (mut rest, mut hops) = (Reader(line), Vec::new());
    loop {
        rest.skip_space();
        let mut hop = None;
        let mut is_empty = true;
        loop {
            rest.skip_space();
            match rest.peek() {
                None | Some(b',') => break,
                Some(b';') => rest.skip(),
                Some(_) => {
                    is_empty = false;
                    let (name, value) = rest.pair()?;
                    if name.eq_ignore_ascii_case(b"for") {
                        // One element says once whom it is for.
                        if hop.is_some() {
                            return None;
                        }
                        hop = Some(std::str::from_utf8(&value).map_or(Hop::Unknown, Hop::read));
                    }
                    rest.skip_space();
                    if !matches!(rest.peek(), None | Some(b',' | b';')) {
                        return None;
                    }
                }
            }
        }
        if !is_empty {
            hops.push(hop.unwrap_or(Hop::Unknown));
        }
        if rest.peek().is_none() {
            return Some(hops);
        }
        rest.skip();
    }
}

/// Reads a line from its start.
struct Reader<'l>(&'l [u8]);

impl<'l> Reader<'l> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn skip(&mut self) {
        self.0 = self.0.get(1..).unwrap_or_default();
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t') = self.peek() {
            self.skip();
        }
    }

    fn take_while(&mut self, is: impl Fn(u8) -> bool) -> &'l [u8] {
        let end = self.0.iter().position(|byte| !is(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// `token = value`, the value a token or a quoted string.
    fn pair(&mut self) -> Option<(&'l [u8], Vec<u8>)> {
        let name = self.take_while(is_token);
        if name.is_empty() || self.peek() != Some(b'=') {
            return None;
        }
        self.skip();
        if self.peek() == Some(b'"') {
            self.skip();
            return Some((name, self.quoted()?));
        }
        // Some proxies write ports and IPv6 addresses without quotation marks; that is not ambiguous.
        let value = self.take_while(|byte| is_token(byte) || b":[]".contains(&byte));
        (!value.is_empty()).then(|| (name, value.to_vec()))
    }

    /// The rest of a quoted string (RFC 9110, section 5.6.4). None if it does not end.
    fn quoted(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            let byte = self.peek()?;
            self.skip();
            match byte {
                b'"' => return Some(text),
                b'\\' => {
                    text.push(self.peek()?);
                    self.skip();
                }
                other => text.push(other),
            }
        }
    }
}

/// A character of a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
