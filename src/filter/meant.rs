//! The function that an unknown name was probably meant for. Whoever follows the hint of a filter that deletes must not come to delete what it
//! was to spare: a name that denies never means the function that it denies, nor a comparison the one in the other direction.

use super::function::FUNCTIONS;
use crate::error::nearest;

/// Names of other languages.
const ELSEWHERE: [(&str, &str); 16] = [
    ("between", "range"),
    ("eq", "equals"),
    ("ge", "gte"),
    ("greaterorequal", "gte"),
    ("greaterthan", "gt"),
    ("ieq", "equals"),
    ("isempty", "missing"),
    ("isnull", "missing"),
    ("le", "lte"),
    ("lessorequal", "lte"),
    ("lessthan", "lt"),
    ("like", "contains"),
    ("matches", "regexp"),
    ("oneof", "in"),
    ("present", "exists"),
    ("regex", "regexp"),
];

/// Names of other languages that deny.
const DENIED_ELSEWHERE: [(&str, &str); 3] = [("ne", "equals"), ("neq", "equals"), ("nin", "in")];

/// How a name begins that denies.
const DENIALS: [&str; 8] = ["doesnot", "doesnt", "isnot", "not", "non", "dont", "un", "is"];

const COMPARISONS: [&str; 4] = ["lt", "lte", "gt", "gte"];

/// The hint for an unknown function, which follows its name; empty if nothing is near.
pub(super) fn hint(name: &str) -> String {
    let letters: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_lowercase();
    if let Some((_, denied)) = DENIED_ELSEWHERE.iter().find(|(other, _)| *other == letters) {
        return denial(denied);
    }
    if let Some(meant) = plainly(&letters) {
        return format!("; did you mean `{meant}`?");
    }
    if let Some((beginning, rest)) = DENIALS
        .iter()
        .find_map(|beginning| Some((*beginning, letters.strip_prefix(beginning)?)))
        .filter(|(_, rest)| !rest.is_empty())
    {
        let meant = plainly(rest).or_else(|| nearest(rest, names()));
        return match meant {
            Some(meant) if beginning == "is" => format!("; did you mean `{meant}`?"),
            Some(meant) => denial(meant),
            None => String::new(),
        };
    }
    match nearest(name, names()) {
        Some(meant) if COMPARISONS.contains(&meant) => {
            "; did you mean `lt`, `lte`, `gt` or `gte`?".to_owned()
        }
        Some(meant) => format!("; did you mean `{meant}`?"),
        None => String::new(),
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|function| function.name)
}

/// The function that is spelt so but for case and marks, or that is called so elsewhere.
fn plainly(letters: &str) -> Option<&'static str> {
    let own = names().find(|name| name.eq_ignore_ascii_case(letters));
    own.or_else(|| ELSEWHERE.iter().find(|(other, _)| *other == letters).map(|(_, meant)| *meant))
}

fn denial(function: &str) -> String {
    format!("; a denial is written `not {function}(…)`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_never_means_what_it_denies() {
        for (name, meant) in [
            ("notEquals", "equals"),
            ("not_equals", "equals"),
            ("notEqual", "equals"),
            ("unequals", "equals"),
            ("isNotEqual", "equals"),
            ("ne", "equals"),
            ("NEQ", "equals"),
            ("notContains", "contains"),
            ("doesNotContain", "contains"),
            ("notMissing", "missing"),
            ("notStartsWith", "startsWith"),
            ("notIn", "in"),
            ("nin", "in"),
            ("notExists", "exists"),
            ("notLike", "contains"),
        ] {
            assert_eq!(hint(name), format!("; a denial is written `not {meant}(…)`"), "{name}");
        }
        assert_eq!(hint("notFrobnicate"), "");
    }

    #[test]
    fn a_comparison_never_means_one_that_takes_other_values() {
        for (name, meant) in
            [("ge", "gte"), ("le", "lte"), ("GTE", "gte"), ("lessThan", "lt"), ("between", "range")]
        {
            assert_eq!(hint(name), format!("; did you mean `{meant}`?"), "{name}");
        }
        for name in ["gtt", "lts", "gtr"] {
            assert_eq!(hint(name), "; did you mean `lt`, `lte`, `gt` or `gte`?", "{name}");
        }
    }

    #[test]
    fn other_names_mean_the_nearest() {
        for (name, meant) in [
            ("equal", "equals"),
            ("startswith", "startsWith"),
            ("starts_with", "startsWith"),
            ("isMissing", "missing"),
            ("isNull", "missing"),
            ("eq", "equals"),
        ] {
            assert_eq!(hint(name), format!("; did you mean `{meant}`?"), "{name}");
        }
        assert_eq!(hint("frobnicate"), "");
    }
}
