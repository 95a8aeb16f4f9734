//! How callers keep their position: cursors, and the page tokens of lists, which are cursors that also know their list. So a caller that
//! has read the existing events as a list continues with a stream from the last token.

use serde::{Deserialize, Serialize};

use crate::db::{PageRequest, PageSize, Realm, Seal, binding, paged};
use crate::error::Result;
use crate::events::cursor::Cursor;
use crate::proto::v1;

/// The sizes of its pages.
pub const SIZES: PageSize = PageSize { default: 100, max: 1_000 };

paged!(v1::ListEventsRequest, "EventService/ListEvents", SIZES);

/// A page token. Read as a cursor, it is one.
#[derive(Serialize, Deserialize)]
struct Token {
    #[serde(flatten)]
    cursor: Cursor,
    /// The arguments of the list, except the size of its pages: a token continues that list alone.
    #[serde(rename = "l")]
    list: u64,
}

/// Makes the page tokens of one list.
pub struct Tokens {
    seal: Seal,
    bound_to: Vec<u8>,
    list: u64,
}

impl Tokens {
    /// Those of the list that the request asks for, which has neither size nor token.
    pub fn of(seal: &Seal, realm: &Realm, request: &v1::ListEventsRequest) -> Tokens {
        Tokens { seal: seal.clone(), bound_to: bound_to(realm), list: digest(realm, request) }
    }

    /// The token of a page that starts behind a position.
    pub fn token(&self, cursor: &Cursor) -> Result<String> {
        self.seal.close(&self.bound_to, &Token { cursor: cursor.clone(), list: self.list })
    }
}

/// The position that the page token of a request names. None if it is the token of another list, or not a token at all.
pub fn open(seal: &Seal, realm: &Realm, request: &v1::ListEventsRequest) -> Option<Cursor> {
    let mut request = request.clone();
    let token: Token = seal.open(&bound_to(realm), &request.take_page().page_token)?;
    (token.list == digest(realm, &request)).then_some(token.cursor)
}

/// The text of a cursor.
pub fn close(seal: &Seal, realm: &Realm, cursor: &Cursor) -> Result<String> {
    seal.close(&bound_to(realm), cursor)
}

/// The position in a cursor, or in a page token of any list.
pub fn open_cursor(seal: &Seal, realm: &Realm, text: &str) -> Option<Cursor> {
    seal.open(&bound_to(realm), text)
}

/// The context that cursors are bound to: the realm, and nothing that would keep a caller from continuing with other arguments.
fn bound_to(realm: &Realm) -> Vec<u8> {
    binding(realm, "EventService/cursor", &())
}

/// The first bytes of the digest of a list. A token is sealed, so that nobody can search for another list that has the same.
fn digest(realm: &Realm, request: &v1::ListEventsRequest) -> u64 {
    binding(realm, v1::ListEventsRequest::LIST, request)
        .iter()
        .take(8)
        .fold(0, |digest, byte| digest << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Mode;
    use crate::events::cursor::{Histories, History};

    fn realm(id: i32) -> Realm {
        Realm::from_row(id, "acme".to_owned(), Mode::Test)
    }

    fn request(subject: &str) -> v1::ListEventsRequest {
        v1::ListEventsRequest { subject: subject.to_owned(), ..Default::default() }
    }

    fn opened(seal: &Seal, realm: &Realm, subject: &str, token: &str) -> Option<Cursor> {
        open(
            seal,
            realm,
            &v1::ListEventsRequest { page_token: token.to_owned(), ..request(subject) },
        )
    }

    #[test]
    fn a_token_of_a_list_is_a_cursor_and_goes_on_with_no_other_list() {
        let seal = Seal::new([1; 32]);
        let histories = Histories {
            all: vec![History { id: uuid::Uuid::from_u128(1), begins: 1 }],
            last: 9,
            dropped: 0,
        };
        for cursor in [
            histories.behind(7, Some(uuid::Uuid::from_u128(7 << 96))),
            histories.behind(7, None).within(2, 5),
            Cursor::beginning(),
        ] {
            let token = Tokens::of(&seal, &realm(1), &request("e")).token(&cursor).unwrap();
            assert_eq!(opened(&seal, &realm(1), "e", &token), Some(cursor.clone()));
            assert_eq!(open_cursor(&seal, &realm(1), &token), Some(cursor.clone()));
            assert_eq!(opened(&seal, &realm(1), "f", &token), None);
            assert_eq!(open_cursor(&seal, &realm(2), &token), None);
            let alone = close(&seal, &realm(1), &cursor).unwrap();
            assert_eq!(open_cursor(&seal, &realm(1), &alone), Some(cursor));
            assert_eq!(
                opened(&seal, &realm(1), "e", &alone),
                None,
                "a cursor does not know what was listed"
            );
        }
    }
}
