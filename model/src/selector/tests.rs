use super::*;
use proptest::prelude::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn check(text: &str, pairs: &[(&str, &str)], wanted: bool) {
    let selector = Selector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(selector.matches(&labels(pairs)), wanted, "{text} on {pairs:?}");
}

#[test]
fn each_operator_on_present_and_absent_labels() {
    let has = [("k", "value"), ("projectcalico.org/zone", "a")];
    let cases = [
        ("", true, true),
        ("all()", true, true),
        ("global()", true, true),
        ("has(k)", true, false),
        ("!has(k)", false, true),
        ("k == \"value\"", true, false),
        ("k == 'other'", false, false),
        ("k != 'value'", false, true),
        ("k != 'other'", true, true),
        ("k in {'a', 'value'}", true, false),
        ("k in {}", false, false),
        ("k not in {'a'}", true, true),
        ("k not in {'value'}", false, true),
        ("k contains 'alu'", true, false),
        ("k starts with 'val'", true, false),
        ("k starts  with 'lue'", false, false),
        ("k ends with \"lue\"", true, false),
        ("projectcalico.org/zone == 'a'", true, false),
        ("has(projectcalico.org/zone)", true, false),
    ];
    for (text, present, absent) in cases {
        check(text, &has, present);
        check(text, &[], absent);
    }
}

#[test]
fn and_binds_tighter_than_or_and_not_tightest() {
    check("a == '1' || b == '1' && c == '1'", &[("a", "1")], true);
    check("(a == '1' || b == '1') && c == '1'", &[("a", "1")], false);
    check("!has(a) && has(b)", &[("b", "")], true);
    check("!(has(a) && has(b))", &[("b", "")], true);
    check("!!has(a)", &[("a", "")], true);
    check("in == 'x' && has(all)", &[("in", "x"), ("all", "")], true);
}

#[test]
fn errors_say_where() {
    let cases = [
        ("k ==", 4, Fault::Expected("a string in quotes")),
        ("k == 'x", 5, Fault::OpenString),
        ("k = 'x'", 2, Fault::Character),
        ("has(k", 5, Fault::Expected(")")),
        ("all() all()", 6, Fault::Expected("&&, || or the end")),
        ("k in {'a' 'b'}", 10, Fault::Expected(",")),
        ("k not with 'a'", 6, Fault::Expected("in")),
        ("&& a", 0, Fault::Expected("a label, has(), all(), ! or (")),
    ];
    for (text, position, fault) in cases {
        assert_eq!(Selector::parse(text), Err(SelectorError { position, fault }), "{text}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let deep = format!("{}all(){}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH));
    assert_eq!(Selector::parse(&deep).unwrap_err().fault, Fault::TooDeep);
    assert_eq!(Selector::parse(&"!".repeat(100_000)).unwrap_err().fault, Fault::TooLong);
    assert_eq!(Selector::parse(&"!".repeat(1000)).unwrap_err().fault, Fault::TooDeep);
    let wide = vec!["has(a)"; 5000].join(" || ");
    assert!(Selector::parse(&wide).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_panics(text in "[a-z(){}!&|='\", .äinhas]{0,40}") {
        if let Err(error) = Selector::parse(&text) {
            prop_assert!(error.position <= text.len());
        }
    }
}
