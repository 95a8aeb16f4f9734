//! Reads the members of tables of TOML, and collects all that is wrong with them by their lines. Pure.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::access::tokens::issuer::{Claim, Said};
use crate::error::{Violations, nearest};

/// The faults of a file so far, each with the place where it begins.
pub struct Faults<'t> {
    text: &'t str,
    found: Vec<(usize, String)>,
}

impl<'t> Faults<'t> {
    /// None so far, of this text.
    pub fn of(text: &'t str) -> Self {
        Faults { text, found: Vec::new() }
    }

    /// Adds a fault that begins at this byte.
    pub fn add(&mut self, at: usize, fault: String) {
        self.found.push((at, fault));
    }

    /// All of them, in the order of their lines.
    pub fn into_violations(mut self) -> Violations {
        self.found.sort();
        let mut faults = Violations::new();
        for (at, fault) in &self.found {
            let before = &self.text.as_bytes()[..(*at).min(self.text.len())];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            faults.add("--auth-file", "invalid", format!("line {line}: {fault}"));
        }
        faults
    }
}

/// The tables of a text, unless it is no TOML.
pub fn document<'t>(text: &'t str, faults: &mut Faults<'_>) -> Option<Spanned<DeTable<'t>>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        faults.add(at, error.message().replace('\n', "; "));
    }
    errors.is_empty().then_some(table)
}

/// The members of a table, which stands somewhere in the file.
pub struct Members<'d> {
    /// How its members are named: `issuer[0].`.
    place: String,
    table: &'d DeTable<'d>,
    span: Range<usize>,
}

type Value<'d> = Spanned<DeValue<'d>>;

impl<'d> Members<'d> {
    /// Those of the whole file.
    pub fn top(table: &'d Spanned<DeTable<'d>>) -> Self {
        Members { place: String::new(), table: table.get_ref(), span: 0..0 }
    }

    /// Where the table begins.
    pub fn start(&self) -> usize {
        self.span.start
    }

    /// The names of the members.
    pub fn names(&self) -> impl Iterator<Item = &'d str> + use<'d> {
        self.table.iter().map(|(name, _)| name.get_ref().as_ref())
    }

    /// Refuses members of other names.
    pub fn check_names(&self, known: &[&str], faults: &mut Faults<'_>) {
        for (name, _) in self.table.iter() {
            let (at, name) = (name.span().start, name.get_ref().as_ref());
            if !known.contains(&name) {
                let near = nearest(name, known.iter().copied());
                let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                faults.add(at, format!("unknown member `{}{name}`{hint}", self.place));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&'d Value<'d>> {
        self.table.iter().find(|(found, _)| found.get_ref() == name).map(|(_, value)| value)
    }

    /// Returns whether there is a member of this name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns whether a member is a table.
    pub fn is_table(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value.get_ref(), DeValue::Table(_)))
    }

    /// Adds a fault of a member, whether it is there or not.
    pub fn refuse(&self, name: &str, fault: &str, faults: &mut Faults<'_>) {
        let at = self.get(name).map_or(self.span.start, |value| value.span().start);
        faults.add(at, format!("`{}{name}` {fault}", self.place));
    }

    /// Returns whether a fault of a member was told.
    pub fn has_fault(&self, name: &str, faults: &Faults<'_>) -> bool {
        let named = format!("`{}{name}` ", self.place);
        faults.found.iter().any(|(_, fault)| fault.starts_with(&named))
    }

    /// A member that is a string, and not empty.
    pub fn string(&self, name: &str, faults: &mut Faults<'_>) -> Option<String> {
        let text = self.get(name)?.get_ref().as_str().filter(|text| !text.is_empty());
        if text.is_none() {
            self.refuse(name, "must be a string, and not empty", faults);
        }
        text.map(str::to_owned)
    }

    /// The same of a member that must be there.
    pub fn required(&self, name: &str, faults: &mut Faults<'_>) -> Option<String> {
        if !self.has(name) {
            self.refuse(name, "must be given: a string", faults);
        }
        self.string(name, faults)
    }

    /// A member that is true or false.
    pub fn truth(&self, name: &str, faults: &mut Faults<'_>) -> Option<bool> {
        let truth = self.get(name)?.get_ref().as_bool();
        if truth.is_none() {
            self.refuse(name, "must be `true` or `false`", faults);
        }
        truth
    }

    /// A member that is a whole number of this range.
    pub fn number(
        &self,
        name: &str,
        range: RangeInclusive<i64>,
        faults: &mut Faults<'_>,
    ) -> Option<i64> {
        let value = self.get(name)?.get_ref().as_integer();
        let number = value
            .and_then(|value| i64::from_str_radix(value.as_str(), value.radix()).ok())
            .filter(|number| range.contains(number));
        if number.is_none() {
            let fault = format!("must be a whole number from {} to {}", range.start(), range.end());
            self.refuse(name, &fault, faults);
        }
        number
    }

    /// A member that is a string or an array of them, none of which is empty.
    pub fn strings(
        &self,
        name: &str,
        required: bool,
        faults: &mut Faults<'_>,
    ) -> Option<Vec<String>> {
        const FORM: &str = "must be a string or an array of strings, and not empty";
        let Some(value) = self.get(name) else {
            if required {
                self.refuse(name, "must be given: a string or an array of strings", faults);
            }
            return None;
        };
        let read: Option<Vec<String>> = match value.get_ref() {
            DeValue::String(text) => Some(vec![text.to_string()]),
            DeValue::Array(items) => {
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        let read = read.filter(|all| !all.is_empty() && all.iter().all(|one| !one.is_empty()));
        if read.is_none() {
            self.refuse(name, FORM, faults);
        }
        read
    }

    /// A member of which each string is read by `read`; all that cannot be are told.
    pub fn each<T>(
        &self,
        name: &str,
        faults: &mut Faults<'_>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let texts = self.strings(name, false, faults)?;
        let values: Vec<Result<T, String>> = texts.iter().map(|text| read(text)).collect();
        for fault in values.iter().filter_map(|value| value.as_ref().err()) {
            self.refuse(name, fault, faults);
        }
        values.into_iter().collect::<Result<_, _>>().ok()
    }

    /// A member that is a table.
    pub fn table(&self, name: &str, faults: &mut Faults<'_>) -> Option<Members<'d>> {
        let value = self.get(name)?;
        match value.get_ref() {
            DeValue::Table(table) => {
                Some(Members { place: format!("{}{name}.", self.place), table, span: value.span() })
            }
            _ => {
                self.refuse(name, "must be a table", faults);
                None
            }
        }
    }

    /// A member that is an array of tables, of which there must be one.
    pub fn tables(&self, name: &str, faults: &mut Faults<'_>) -> Vec<Members<'d>> {
        let form = format!("must be given: a table `[[{name}]]` for each");
        let items = match self.get(name).map(Spanned::get_ref) {
            Some(DeValue::Array(items)) if !items.is_empty() => items,
            _ => {
                self.refuse(name, &form, faults);
                return Vec::new();
            }
        };
        let mut tables = Vec::new();
        for (place, item) in items.iter().enumerate() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    let place = format!("{}{name}[{place}].", self.place);
                    tables.push(Members { place, table, span: item.span() });
                }
                _ => faults.add(item.span().start, format!("`{}{name}` {form}", self.place)),
            }
        }
        tables
    }

    /// A member that names a claim.
    pub fn claim(&self, name: &str, faults: &mut Faults<'_>) -> Option<Claim> {
        let place = self.required(name, faults)?;
        match Claim::parse(&place) {
            Ok(claim) => Some(claim),
            Err(fault) => {
                self.refuse(name, fault, faults);
                None
            }
        }
    }

    /// A member that is a value of all tokens, or names the claim that has it.
    pub fn said<T>(
        &self,
        name: &str,
        faults: &mut Faults<'_>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Said<T>> {
        let value = self.get(name)?;
        match value.get_ref() {
            DeValue::Table(_) => {
                let table = self.table(name, faults)?;
                table.check_names(&["claim"], faults);
                table.claim("claim", faults).map(Said::Claim)
            }
            DeValue::String(text) if !text.is_empty() => match read(text) {
                Ok(value) => Some(Said::Always(value)),
                Err(fault) => {
                    self.refuse(name, &fault, faults);
                    None
                }
            },
            _ => {
                self.refuse(name, "must be a string, or `{ claim = \"…\" }`", faults);
                None
            }
        }
    }

    /// Where the principal is unless the file says otherwise.
    pub fn subject(&self) -> Option<Said<String>> {
        Claim::parse("sub").ok().map(Said::Claim)
    }
}
