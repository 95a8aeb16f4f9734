//! Properties of any text and of any filter.

use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9._:/$+~-]{0,6}",
        "[ -~\n\t]{0,8}",
        any::<String>().prop_map(|text| text.chars().filter(|c| *c != '\0').take(10).collect()),
        Just("entities/e".to_owned()),
    ]
}

fn quoted(text: String) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""))
}

fn filter_text() -> impl Strategy<Value = String> {
    let path = prop_oneof![
        Just("type".to_owned()),
        Just("uri".to_owned()),
        prop::collection::vec(text().prop_map(quoted), 1..4)
            .prop_map(|names| format!("attributes.{}", names.join("."))),
    ];
    let call = (path, prop::collection::vec(text().prop_map(quoted), 2..5), 0..12_usize).prop_map(
        |(path, values, kind)| match kind {
            0 => format!("exists({path})"),
            1 => format!("missing( {path} )"),
            2 => format!("in({path},{})", values.join(" , ")),
            3 => format!("startsWith({path}, \"x{}", &values[0][1..]) + ")",
            4 => format!("equalsCaseSensitive({path}, {})", values[0]),
            5 => format!(
                "inSameAttributeValue(exists(attributes.a.{}) or missing(attributes.a.count.b))",
                values[0]
            ),
            6 => {
                "gte(updated_at, '2024-01-01') and lt(attributes.a.count, 5) and exists(portfolio)"
                    .to_owned()
            }
            7 => format!("listEquals({path},{})", values.join(" , ")),
            8 => format!("contains({path}, 'x*?')"),
            9 => format!("regexp({path}, '[^a-c]{{2,}}')"),
            _ => format!("equals({path}, {})", values[0]),
        },
    );
    call.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| format!("NOT({inner})")),
            inner.clone().prop_map(|inner| format!("not {inner}")),
            (prop::collection::vec(inner.clone(), 2..4), "and|AND|or|Or")
                .prop_map(|(members, operator)| members.join(&format!(" {operator} "))),
            (prop::collection::vec(inner, 2..4), "and|or").prop_map(|(members, operator)| format!(
                "({})",
                members.join(&format!(" {operator} "))
            )),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        if let Err(error) = Filter::parse(&text) {
            prop_assert!(error.position <= text.chars().count());
            prop_assert!(error.caret(&text).ends_with('^'));
        }
    }

    #[test]
    fn no_text_of_its_own_tokens_makes_the_parser_panic(tokens in prop::collection::vec("[(),.'\"\\\\]|and|or|not|in|equals|type|uri|attributes| |a|“|é", 0..40)) {
        let text = tokens.concat();
        for error in [Filter::parse(&text).err(), Filter::parse_strict(&text).err()].into_iter().flatten() {
            prop_assert!(error.position <= text.chars().count());
        }
    }

    #[test]
    fn the_canonical_text_parses_back_to_an_equal_filter(text in filter_text()) {
        let filter = Filter::parse(&text);
        prop_assert!(filter.is_ok(), "{text}: {filter:?}");
        let filter = filter.expect("just checked");
        let canonical = filter.to_string();
        prop_assert_eq!(&Filter::parse(&canonical), &Ok(filter), "{}", canonical);
    }
}
