//! Pages of a list, by key and never by offset, so that they stay right while rows are added and removed.

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::db::{Realm, Seal};
use crate::error::{Result, Violations};
use crate::limits::thousands;

/// The page that a call asks for. `C` is the position of a row in the order of the list, behind which the next page starts.
#[derive(Debug)]
pub struct Page<C> {
    size: usize,
    after: Option<C>,
    bound_to: Vec<u8>,
    seal: Seal,
}

/// The sizes of the pages of a list.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    /// When the caller says none.
    pub default: i32,
    /// The most that a caller may ask for.
    pub max: i32,
}

/// A request for a page of a list.
pub trait PageRequest: Message {
    /// The name of the list, to which its tokens are bound. It stays as it is.
    const LIST: &'static str;
    /// The sizes of its pages.
    const SIZES: PageSize;

    /// Takes out what may change from page to page.
    fn take_page(&mut self) -> PageAsked;
}

/// The arguments of a request about its page.
#[derive(Debug)]
pub struct PageAsked {
    /// How many rows; 0 for as many as are usual.
    pub page_size: i32,
    /// The field of the token.
    pub name: &'static str,
    /// Where the page begins; empty for the first.
    pub page_token: String,
}

/// Makes a message with `page_size` and `page_token` a [`PageRequest`] of a list.
macro_rules! paged {
    ($request:ty, $list:expr, $sizes:expr) => {
        impl $crate::db::PageRequest for $request {
            const LIST: &'static str = $list;
            const SIZES: $crate::db::PageSize = $sizes;

            fn take_page(&mut self) -> $crate::db::PageAsked {
                let page_token = std::mem::take(&mut self.page_token);
                $crate::db::PageAsked {
                    page_size: std::mem::take(&mut self.page_size),
                    name: "page_token",
                    page_token,
                }
            }
        }
    };
}
pub(crate) use paged;

impl<C: Serialize + DeserializeOwned> Page<C> {
    /// Takes `page_size` and `page_token` out of a request (AIP-158) and reads them. A token is bound to the rest of the request, to the realm and
    /// to the list's name, so that it opens only the list that it came from. The size may change from page to page.
    pub fn check<R: PageRequest>(
        seal: Seal,
        realm: &Realm,
        request: &mut R,
        faults: &mut Violations,
    ) -> Self {
        let PageAsked { page_size, name, page_token } = request.take_page();
        let size = match page_size {
            0 => R::SIZES.default,
            size if (1..=R::SIZES.max).contains(&size) => size,
            _ => {
                faults.add(
                    "page_size",
                    "out_of_range",
                    format!(
                        "must be from 1 to {}, or 0 for {}",
                        thousands(R::SIZES.max),
                        thousands(R::SIZES.default)
                    ),
                );
                R::SIZES.default
            }
        };
        let bound_to = binding(realm, R::LIST, request);
        let after = match page_token.as_str() {
            "" => None,
            token => seal.open(&bound_to, token).or_else(|| {
                let description = "must be the token that came with the page before, with all other arguments as they were";
                faults.add(name, "invalid", description);
                None
            }),
        };
        Page { size: size.unsigned_abs() as usize, after, bound_to, seal }
    }

    /// The position behind which the page starts; none for the first.
    pub fn after(&self) -> Option<&C> {
        self.after.as_ref()
    }

    /// How many rows to read: one more than the page has shows whether there is another.
    pub fn limit(&self) -> i64 {
        self.size as i64 + 1
    }

    /// How many rows the page has.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The token of a page that starts behind a position.
    pub fn token(&self, position: &C) -> Result<String> {
        self.seal.close(&self.bound_to, position)
    }

    /// Cuts what was read to the page, and makes the token of the next; empty after the last.
    pub fn cut<T>(&self, rows: &mut Vec<T>, position: impl FnOnce(&T) -> C) -> Result<String> {
        self.cut_short(rows, false, position)
    }

    /// The same for rows of which reading may have ended before the limit: `more` says whether there are others behind them.
    pub fn cut_short<T>(
        &self,
        rows: &mut Vec<T>,
        more: bool,
        position: impl FnOnce(&T) -> C,
    ) -> Result<String> {
        let more = more || rows.len() > self.size;
        rows.truncate(self.size);
        match rows.last().filter(|_| more) {
            Some(last) => self.token(&position(last)),
            None => Ok(String::new()),
        }
    }
}

/// The context that a token of a list is bound to.
pub fn binding(realm: &Realm, list: &'static str, request: &impl Message) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(realm.id().to_be_bytes());
    hash.update((list.len() as u64).to_be_bytes());
    hash.update(list);
    hash.update(request.encode_to_vec());
    hash.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Mode;

    /// A request for things.
    #[derive(Clone, PartialEq, Message)]
    struct ListThings {
        #[prost(string, tag = "1")]
        argument: String,
        #[prost(int32, tag = "2")]
        page_size: i32,
        #[prost(string, tag = "3")]
        page_token: String,
    }

    paged!(ListThings, "Things/List", PageSize { default: 2, max: 1000 });

    fn page(realm: i32, argument: &str, size: i32, token: &str) -> Result<Page<String>> {
        let realm = Realm::from_row(realm, "acme".to_owned(), Mode::Test);
        let mut request = ListThings {
            argument: argument.to_owned(),
            page_size: size,
            page_token: token.to_owned(),
        };
        let mut faults = Violations::new();
        let page = Page::check(Seal::new([1; 32]), &realm, &mut request, &mut faults);
        faults.check().map(|()| page)
    }

    #[test]
    fn a_token_leads_to_the_next_page_of_the_same_list() {
        let mut rows = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let token = page(1, "x", 0, "").unwrap().cut(&mut rows, String::clone).unwrap();
        assert_eq!(rows, ["a", "b"]);
        let next = page(1, "x", 100, &token).unwrap();
        assert_eq!(next.after().map(String::as_str), Some("b"));
        assert_eq!(next.limit(), 101);
        assert_eq!(next.cut(&mut rows, String::clone).unwrap(), "");
    }

    #[test]
    fn a_page_that_was_cut_short_has_a_next_one() {
        let mut rows = vec!["a".to_owned()];
        let token = page(1, "x", 2, "").unwrap().cut_short(&mut rows, true, String::clone).unwrap();
        assert_eq!(page(1, "x", 2, &token).unwrap().after().map(String::as_str), Some("a"));
        assert_eq!(rows, ["a"]);
    }

    #[test]
    fn a_token_of_another_list_realm_or_request_is_refused() {
        let token = page(1, "x", 1, "")
            .unwrap()
            .cut(&mut vec!["a".to_owned(), "b".to_owned()], String::clone)
            .unwrap();
        assert!(page(1, "x", 1, &token).is_ok());
        for (realm, argument) in [(2, "x"), (1, "y")] {
            let error = page(realm, argument, 1, &token).unwrap_err();
            assert_eq!(error.violations()[0].field, "page_token");
        }
    }

    #[test]
    fn every_fault_of_a_page_is_reported() {
        let error = page(1, "x", -1, "nonsense").unwrap_err();
        let fields: Vec<_> = error.violations().iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["page_size", "page_token"]);
        assert!(error.violations()[0].description.ends_with("1 to 1,000, or 0 for 2"));
        assert!(page(1, "x", 1001, "").is_err());
    }
}
