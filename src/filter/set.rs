//! The sets of characters of expressions: the contents of brackets, and the classes of Perl.

use regex_syntax::ast::{ClassBracketed, ClassPerl, ClassPerlKind, ClassSet, ClassSetItem};
use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

/// A fault, and the byte at which it is.
pub(super) type Fault = (String, usize);

/// `\d`, `\s` and `\w` are of ASCII: what belongs to them beyond differs between versions of Unicode.
pub(super) fn perl(class: &ClassPerl) -> ClassUnicode {
    let ranges: &[(char, char)] = match class.kind {
        ClassPerlKind::Digit => &[('0', '9')],
        ClassPerlKind::Space => &[('\t', '\r'), (' ', ' ')],
        ClassPerlKind::Word => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
    };
    let set =
        ClassUnicode::new(ranges.iter().map(|(start, end)| ClassUnicodeRange::new(*start, *end)));
    if class.negated { opposite(set) } else { set }
}

/// All characters that a set does not have. U+0000 is in no text, and Postgres does not know it.
fn opposite(mut set: ClassUnicode) -> ClassUnicode {
    set.push(ClassUnicodeRange::new('\0', '\0'));
    set.negate();
    set
}

/// Why U+0000 is refused.
pub(super) const NULL: &str = "a value cannot contain the character U+0000";

/// The characters that brackets stand for.
pub(super) fn bracketed(class: &ClassBracketed) -> Result<ClassUnicode, Fault> {
    let mut set = ClassUnicode::empty();
    collect(&class.kind, &mut set)?;
    Ok(if class.negated { opposite(set) } else { set })
}

/// Adds the contents of brackets to a set. In faults a backslash is doubled, as it must be in the text of a filter.
fn collect(class: &ClassSet, set: &mut ClassUnicode) -> Result<(), Fault> {
    let fault = |message: &str| Err((message.to_owned(), class.span().start.offset));
    match class {
        ClassSet::Item(item) => collect_item(item, set),
        ClassSet::BinaryOp(_) => fault(
            "a set cannot be made of other sets; a `&`, `-` or `~` itself is written `\\\\&`, `\\\\-` or `\\\\~`",
        ),
    }
}

fn collect_item(item: &ClassSetItem, set: &mut ClassUnicode) -> Result<(), Fault> {
    let fault = |message: &str| Err((message.to_owned(), item.span().start.offset));
    match item {
        ClassSetItem::Empty(_) => {}
        ClassSetItem::Literal(literal) if literal.c == '\0' => return fault(NULL),
        ClassSetItem::Range(range) if range.start.c == '\0' => return fault(NULL),
        ClassSetItem::Literal(literal) => set.push(ClassUnicodeRange::new(literal.c, literal.c)),
        ClassSetItem::Range(range) => set.push(ClassUnicodeRange::new(range.start.c, range.end.c)),
        ClassSetItem::Perl(class) => set.union(&perl(class)),
        ClassSetItem::Union(union) => {
            union.items.iter().try_for_each(|item| collect_item(item, set))?
        }
        ClassSetItem::Ascii(_) | ClassSetItem::Unicode(_) => {
            return fault("classes by name are not admitted; name the characters");
        }
        ClassSetItem::Bracketed(_) => {
            return fault("a set cannot contain another; a `[` itself is written `\\\\[`");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::filter::Filter;

    #[test]
    fn what_a_fault_says_to_write_is_read_in_a_filter() {
        let filter = |set: &str| {
            Filter::parse(&format!("regexp(attributes.a, '[a{set}b]')"))
                .map_err(|error| error.message)
        };
        for (set, mark) in [("&&", "&"), ("--", "-"), ("~~", "~"), ("[x]", "[")] {
            let fault = filter(set).unwrap_err();
            let written = fault
                .split('`')
                .find(|text| text.starts_with('\\') && text.ends_with(mark))
                .unwrap_or_else(|| panic!("{fault}"));
            assert!(filter(&set.replace(mark, written)).is_ok(), "{set}: {fault}");
        }
    }
}
