use super::*;

fn reported(filter: &str) -> Vec<String> {
    let shown = |SuspectValue { path, value, meant, .. }| match meant {
        Meant::Number(number) => format!("{path} {value}: {number}"),
        Meant::Date(_) => format!("{path} {value}: date"),
        Meant::OtherEnd => format!("{path} {value}: other end"),
        Meant::NoNumber => format!("{path} {value}: no number"),
        Meant::Version => format!("{path} {value}: version"),
        Meant::Variable => format!("{path} {value}: variable"),
    };
    let filter = Filter::parse(filter).unwrap();
    let by_form = filter.comparisons().into_iter().flat_map(|comparison| comparison.by_form);
    by_form.chain(filter.variables()).map(shown).collect()
}

#[test]
fn what_looks_like_a_number_and_is_written_as_none_is_suspect() {
    for (value, number) in [
        ("1,000", "1000"),
        ("1,234,567.50", "1234567.5"),
        ("1.000,50", "1000.5"),
        ("1,5", "1.5"),
        ("1 000", "1000"),
        ("1_000", "1000"),
        ("+1000", "1000"),
        ("01000", "1000"),
        ("$1000", "1000"),
        ("-$1,000", "-1000"),
        ("1000 €", "1000"),
        ("50%", "50"),
        (".5", "0.5"),
        ("5.", "5"),
        ("00", "0"),
        (" 7 ", "7"),
        ("１０００", "1000"),
        ("−5", "-5"),
        ("–1,000", "-1000"),
        ("٥", "5"),
        ("١٬٢٣٤٫٥", "1234.5"),
        ("५०", "50"),
        ("\u{200b}1000\u{feff}", "1000"),
        ("1k", "1000"),
        ("-2.5 M", "-2500000"),
        ("3bn", "3000000000"),
        ("1000 EUR", "1000"),
        ("USD 1,000", "1000"),
        ("-$5k", "-5000"),
    ] {
        assert_eq!(
            reported(&format!("gt(attributes.A, '{value}')")),
            [format!("attributes.A {value}: {number}")],
            "{value}"
        );
    }
    assert_eq!(reported(r#"gt(attributes.A, "1'000")"#), ["attributes.A 1'000: 1000"]);
}

#[test]
fn what_programs_write_where_they_have_no_number_is_suspect() {
    for value in ["NaN", "-nan", "Infinity", "-Inf", "null", "undefined"] {
        assert_eq!(
            reported(&format!("gt(attributes.A, '{value}')")),
            [format!("attributes.A {value}: no number")],
            "{value}"
        );
    }
}

#[test]
fn what_looks_like_a_date_and_is_written_as_none_is_suspect() {
    for value in [
        "2015/01/01",
        "2015-1-1",
        "2015-02-30",
        "2015-01-01T10:00",
        "2015.01.01",
        "1.2.2015",
        "1/1/2015",
        "1/1/15",
        "2015-01",
        "01/2015",
        "Jan 1 2015",
        "1 January, 2015",
        "Thu, 1st Jan 2015 10:00 UTC",
        "today",
        "NOW",
        "now-1y",
        "now()",
        "15-01-01",
        "31-12-15",
        "31.12.15",
        "２０１５-01-01",
        "2015–01–01",
        "2015-W01",
        "2015-W01-1",
        "-P1D",
        "P1Y2M",
        "PT12H",
        "-30d",
        "7 days",
        "30 days ago",
        "1 year",
    ] {
        assert_eq!(
            reported(&format!("lt(attributes.A, '{value}')")),
            [format!("attributes.A {value}: date")],
            "{value}"
        );
    }
}

#[test]
fn other_texts_and_what_is_compared_as_it_is_written_are_not() {
    for value in [
        "1000",
        "1e3",
        "-0.5",
        "2015-01-01",
        "2015-01-01T10:00:00Z",
        "a",
        "Bonn",
        "nowhere",
        "May",
        "Mayer 5",
        "A-12",
        "12-34",
        "-",
        "$",
        ".",
        "today Inc",
        "3rd",
        "2015-13",
        "12-34-56",
        "Pt",
        "P1",
        "P1DX",
        "12 Main Street",
        "5d",
        "k",
        "EUR",
        "Nancy",
        "infinite",
        "K2",
    ] {
        assert!(reported(&format!("gte(attributes.A, '{value}')")).is_empty(), "{value}");
    }
    assert!(reported("equals(attributes.A, '1,000') and startsWith(attributes.A, '01000') and gt(type, '1,000')").is_empty());
}

#[test]
fn it_is_reported_wherever_it_stands() {
    let filter = "not gt(attributes.A, '1,000') or inSameAttributeValue(lt(attributes.B.C, today))";
    assert_eq!(reported(filter), ["attributes.A 1,000: 1000", "attributes.B.C today: date"]);
    assert_eq!(reported("range(attributes.A, '1,000', 2000)"), ["attributes.A 1,000: 1000"]);
    let mixed = ["attributes.A 1000: other end", "attributes.A 2015-01-01: other end"];
    assert_eq!(reported("range(attributes.A, 1000, '2015-01-01')"), mixed);
    for (from, to) in [("2019-01-01", "2020-13"), ("2019", "2020-01"), ("2018", "2019-12")] {
        let both = [from, to].map(|end| format!("attributes.A {end}: other end"));
        assert_eq!(reported(&format!("range(attributes.A, '{from}', '{to}')")), both);
    }
    assert!(
        reported("range(attributes.A, 1, b)").is_empty()
            && reported("range(attributes.A, 1, 2)").is_empty()
    );
}

#[test]
fn a_version_is_suspect_in_an_order() {
    for value in ["2.0.0", "v2", "v2019", "10.0.0.1", "1.2.3-rc.1"] {
        assert_eq!(
            reported(&format!("lt(attributes.A, '{value}')")),
            [format!("attributes.A {value}: version")],
            "{value}"
        );
    }
    assert!(reported("equals(attributes.A, '2.0.0')").is_empty());
}

#[test]
fn a_variable_that_was_not_replaced_is_suspect_in_every_function() {
    for value in [
        "$MIN_RANK",
        "${MIN_RANK}",
        "{{name}}",
        "{{ .Values.name }}x",
        "%NAME%",
        "<name>",
        "entities/$ID",
        "a-${B}-c",
    ] {
        let filters = [
            "equals(type, '{}')",
            "not in(uri, x, '{}')",
            "gt(attributes.A, '{}')",
            "startsWith(portfolio, '{}')",
        ];
        for filter in filters {
            let filter = filter.replace("{}", value);
            let all = reported(&filter);
            assert!(
                matches!(all.as_slice(), [one] if one.ends_with(&format!("{value}: variable"))),
                "{filter}: {all:?}"
            );
        }
    }
    for value in ["$1000", "100%", "%", "<5", "a<b>", "{x}", "$", "5 $"] {
        assert!(reported(&format!("equals(attributes.A, '{value}')")).is_empty(), "{value}");
    }
}

#[test]
fn the_date_that_is_meant_is_reported_where_it_is_known() {
    for (value, date) in [
        ("2019-01", Some("2019-01-01")),
        ("2023/07", Some("2023-07-01")),
        ("01/2015", Some("2015-01-01")),
        ("2019-1-1", Some("2019-01-01")),
        ("Mar 5 2021", Some("2021-03-05")),
        ("Thu, 1st Jan 2015 10:00 UTC", Some("2015-01-01")),
        ("January 2015", Some("2015-01-01")),
        ("05.03.2021", Some("2021-03-05")),
        ("31/12/2015", Some("2015-12-31")),
        ("12/31/2015", Some("2015-12-31")),
        ("2015-W01-1", Some("2014-12-29")),
        ("2015-01-01T10:00", Some("2015-01-01")),
        ("05/03/2021", None),
        ("15-03-01", None),
        ("2015-02-30", None),
        ("today", None),
        ("-30d", None),
    ] {
        assert_eq!(meant_by(value), Some(Meant::Date(date.map(str::to_owned))), "{value}");
    }
}
