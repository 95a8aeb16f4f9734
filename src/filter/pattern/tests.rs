use super::*;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"))
}

fn refused(text: &str, position: usize, part: &str) {
    let refusal = Pattern::parse(text).unwrap_err();
    assert!(refusal.message.contains(part), "{text}: {refusal:?}");
    assert_eq!(refusal.position, position, "{text}: {refusal:?}");
}

#[test]
fn the_whole_value_must_match_with_its_case() {
    assert!(
        pattern("Joh?n").matches("Jon")
            && !pattern("Joh?n").matches("john")
            && !pattern("Joh?n").matches("Johnny")
    );
}

#[test]
fn anchors_at_the_ends_say_nothing_new() {
    assert_eq!(pattern("^ab$"), pattern("ab"));
}

#[test]
fn classes_are_of_ascii_and_the_dot_is_any_character() {
    assert!(
        pattern(r"\d+\s\w").matches("12 a")
            && !pattern(r"\d").matches("٣")
            && !pattern(r"\w").matches("é")
    );
    assert!(
        pattern(".").matches("\n") && pattern(".").matches("😀") && pattern(r"[^\d]").matches("é")
    );
    assert!(pattern(r"[\[\]\-^a-c]+").matches("]-^[b") && !pattern("[^a-c]").matches("b"));
    assert!(
        pattern("a{2,3}?").matches("aaa")
            && pattern("(?P<x>a|)b").matches("b")
            && pattern("").matches("")
    );
}

#[test]
fn what_the_engines_would_read_differently_is_refused_where_it_stands() {
    refused("a\\1", 1, "backreferences");
    refused("é(?=b)", 1, "look-around");
    refused("a^b", 1, "at the very beginning");
    refused("a|b$", 3, "at the very end");
    refused(r"a\b", 1, "looking around");
    refused(r"\pL", 0, "classes of Unicode");
    refused("[[:alpha:]]", 1, "by name");
    refused("[a[b]]", 2, "another");
    refused("[a&&b]", 1, "made of other sets");
    refused("(?i)a", 0, "flags");
    refused("(?i:a)", 0, "flags");
    refused("(a", 0, "unclosed group");
    refused("a)", 1, "unopened");
    refused("*", 0, "repetition operator missing expression");
    refused("\\x00", 0, "U+0000");
}

#[test]
fn what_no_text_has_is_in_no_set() {
    refused(r"[\x00]", 1, "U+0000");
    refused(r"a[^b\x00-\x05]", 4, "U+0000");
    refused(r"[\x01-\x{10FFFF}]|[^\x01-\x{10FFFF}]", 18, "no characters");
    assert!(
        pattern(r"[^a]\D").matches("\u{1}\u{1}")
            && !pattern("[^a]").matches("\0")
            && !pattern(r"[\D]").matches("\0")
    );
}

#[test]
fn what_is_repeated_is_bounded_however_it_is_nested() {
    pattern("(?:.{250}){4}");
    pattern(".*(?:.{165}){2}");
    refused(".*(?:.{167}){2}", 0, "more than 1000 ways");
    refused("(?:.{250}){5}", 0, "more than 1000 ways");
    refused("(((a{100}){100}){100}){100}", 0, "more than 1000 ways");
    refused("((((a{0,99}){0,99}){0,99}){0,99}){0,99}", 0, "more than 1000 ways");
    refused("((((a|b){255}){255}){255}){255}", 0, "more than 1000 ways");
    refused("((((){255}){255}){255}){255}", 0, "more than 1000 ways");
    refused("a{256}", 0, "255");
    refused("xa{0,300}", 1, "255");
    let deep = format!("{}a{}", "(".repeat(40), ")".repeat(40));
    assert!(Pattern::parse(&deep).unwrap_err().message.contains("nest"));
}

#[test]
fn a_run_of_what_may_be_left_out_counts_each_way_through_it() {
    for expression in
        ["(.?){43}", "(a?b?c?){14}", "(a?){12}(b*){12}", "([ab]?[bc]?){14}", "(.{0,3}){14}"]
    {
        pattern(expression);
    }
    for expression in [
        "(.?){45}",
        "(.?){30}(.*){2}",
        "(.?){255}(.?){255}(.?){255}(.?){234}z",
        "([a-z]?[b-z]?[c-z]?[d-z]?[e-z]?){9}z",
        "((a?){20}){3}b",
        "([ab]?[bc]?[cd]?){12}",
        "(a?a?a?a?a?){9}b",
        "(a*b*c*d*e*f*g*h*){0,6}z",
        "(|a|b){20}",
    ] {
        refused(expression, 0, "more than 1000 ways");
    }
}

#[test]
fn everyday_expressions_are_far_from_the_bound() {
    for expression in [
        ".*foo.*",
        "(abc)?",
        r"[A-Z]{2}\d{0,8}",
        r"\w{1,64}@\w{1,64}\.com",
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}",
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        r"\+?\d{1,3}[ -]?(\(\d{1,4}\))?[ -]?\d{3,12}",
        r"(https?://)?([\w-]+\.)+[a-z]{2,}(/\S*)?",
        r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])",
        r"(25[0-5]|2[0-4]\d|1?\d{1,2})(\.(25[0-5]|2[0-4]\d|1?\d{1,2})){3}",
        ".*(alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega).*",
        "(monday|tuesday|wednesday|thursday|friday|saturday|sunday)( (morning|noon|evening|night))?",
        ".{0,255}x",
        "[^@]{1,64}@[^@]{1,255}",
    ] {
        assert!(pattern(expression).steps <= MAX_STEPS, "{expression}");
    }
}

#[test]
fn expressions_that_make_others_slow_end_quickly() {
    let text = "a".repeat(100_000);
    for expression in
        ["(a+)+b", "(a|a)*b", "(a*)*b", "(a|aa)+b", "(.*a){9}b", "(a?){30}a{100}b", ".{255}x"]
    {
        assert!(!pattern(expression).matches(&text), "{expression}");
    }
}
