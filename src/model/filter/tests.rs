//! Tests of filters: the examples of Pub/Sub's documentation, errors, and random filters against an
//! independent evaluation.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Attributes = BTreeMap<String, String>;
/// Attributes of several messages.
type Messages<'a> = &'a [&'a [(&'a str, &'a str)]];
/// Value of a condition for the value of an attribute and the value in the condition.
type IsShown = fn(Option<&str>, &str) -> bool;

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn shows(filter: &Filter, attributes: &Attributes) -> bool {
    filter.matches(|key| attributes.get(key).map(String::as_str))
}

fn parse(text: &str) -> Filter {
    Filter::parse(text).unwrap_or_else(|err| panic!("{text}: {err}"))
}

#[test]
fn documented_examples_match_as_documented() {
    const TAG: &str = "iana.org/language_tag";
    let tag_and = r#"attributes:"iana.org/language_tag" AND "#;
    let domains = r#"(attributes.name = "net" OR attributes.name = "org")"#;
    // Each filter with messages that it shows and messages that it hides.
    let examples: &[(&str, Messages<'_>, Messages<'_>)] = &[
        ("attributes:name", &[&[("name", "")], &[("name", "com")]], &[&[], &[("Name", "com")]]),
        ("NOT attributes:name", &[&[], &[("other", "com")]], &[&[("name", "com")]]),
        ("-attributes:name", &[&[]], &[&[("name", "com")]]),
        (
            "attributes.name = \"com\"",
            &[&[("name", "com")]],
            &[&[], &[("name", "Com")], &[("name", "com ")], &[("NAME", "com")]],
        ),
        ("attributes.name != \"com\"", &[&[], &[("name", "org")]], &[&[("name", "com")]]),
        ("NOT attributes.name != \"com\"", &[&[("name", "com")]], &[&[], &[("name", "org")]]),
        (
            "hasPrefix(attributes.name, \"co\")",
            &[&[("name", "co")], &[("name", "com")]],
            &[&[], &[("name", "c")], &[("name", "xco")], &[("name", "Com")]],
        ),
        (
            "NOT hasPrefix(attributes.name, \"co\")",
            &[&[], &[("name", "net")]],
            &[&[("name", "co")]],
        ),
        (r#"attributes:"iana.org/language_tag""#, &[&[(TAG, "en")]], &[&[("iana", "en")]]),
        (r#"attributes:"\u307F\u3093\u306A""#, &[&[("みんな", "x")]], &[&[]]),
        (
            &format!("{tag_and}attributes.name = \"com\""),
            &[&[(TAG, "en"), ("name", "com")]],
            &[&[(TAG, "en")], &[("name", "com")]],
        ),
        (
            &format!("{tag_and}{domains}"),
            &[&[(TAG, "en"), ("name", "net")], &[(TAG, "en"), ("name", "org")]],
            &[&[(TAG, "en"), ("name", "com")], &[("name", "net")], &[(TAG, "en")]],
        ),
        (
            "attributes.name = \"com\" AND -attributes:\"iana.org/language_tag\"",
            &[&[("name", "com")]],
            &[&[("name", "com"), (TAG, "en")], &[]],
        ),
        (
            "attributes.name = \"com\" AND NOT (attributes:a OR attributes:b)",
            &[&[("name", "com")]],
            &[&[("name", "com"), ("a", "")], &[("name", "com"), ("b", "")]],
        ),
        ("NOT attributes:a OR attributes:b", &[&[], &[("b", "")]], &[&[("a", "")]]),
        ("attributes : a-b_9\tAND\nattributes.-=\"\"", &[&[("a-b_9", ""), ("-", "")]], &[&[]]),
        ("(((attributes:a)))", &[&[("a", "")]], &[&[]]),
        ("NOT(attributes:a)AND(attributes:b)", &[&[("b", "")]], &[&[]]),
        ("attributes.attributes = \"AND\"", &[&[("attributes", "AND")]], &[&[]]),
        ("attributes:NOT", &[&[("NOT", "")]], &[&[]]),
    ];
    for (text, shown, hidden) in examples {
        let filter = parse(text);
        for message in *shown {
            assert!(shows(&filter, &attributes(message)), "{text} hides {message:?}");
        }
        for message in *hidden {
            assert!(!shows(&filter, &attributes(message)), "{text} shows {message:?}");
        }
    }
}

#[test]
fn escapes_stand_for_characters() {
    for (written, value) in [
        (r#"a\"b"#, "a\"b"),
        (r"a\\b", "a\\b"),
        (r"\'\a\b\f\n\r\t\v", "'\x07\x08\x0c\n\r\t\x0b"),
        (r"\x41\x7a\xe9", "Azé"),
        (r"\101\60x\0", "A0x\0"),
        (r"\377\1234", "\u{ff}S4"),
        (r"\u0041\uD83D\uDE00", "A😀"),
        ("an\nend and é", "an\nend and é"),
    ] {
        let filter = parse(&format!("attributes.k = \"{written}\""));
        assert!(shows(&filter, &attributes(&[("k", value)])), "{written}");
    }
}

/// Each `^` in a text is the position at which the parser must report the error.
#[test]
fn errors_name_the_position_and_what_was_expected() {
    for (marked, expected) in [
        ("^", "a condition"),
        ("  ^", "a condition"),
        ("^name = \"com\"", "a condition"),
        ("^Attributes:a", "a condition"),
        ("^not attributes:a", "a condition"),
        ("^hasprefix(attributes.a, \"b\")", "a condition"),
        ("attributes:a AND ^", "a condition"),
        ("^AND attributes:a", "a condition"),
        ("NOT ^", "a condition"),
        ("NOT ^OR attributes:a", "a condition"),
        ("^NOTattributes:a", "a condition"),
        ("(^)", "a condition"),
        ("attributes:a ^and attributes:b", "AND or OR, in upper case"),
        ("attributes:a ^attributes:b", "AND or OR"),
        ("attributes:a ^|| attributes:b", "AND or OR"),
        ("attributes:a^)", "AND or OR"),
        ("(attributes:a^", "a closing parenthesis"),
        ("(attributes:a ^or attributes:b)", "a closing parenthesis"),
        ("attributes:a AND attributes:b ^OR attributes:c", "parentheses"),
        ("attributes:a OR attributes:b ^AND attributes:c", "parentheses"),
        ("attributes:a AND attributes:b AND NOT attributes:c ^OR attributes:d", "parentheses"),
        ("(attributes:a OR attributes:b ^AND attributes:c)", "parentheses"),
        ("attributes:a OR (attributes:b AND attributes:c ^OR attributes:d)", "parentheses"),
        ("attributes^", "a colon or a dot"),
        ("attributes ^= \"a\"", "a colon or a dot"),
        ("attributes:^", "the key"),
        ("attributes:^= \"a\"", "the key"),
        ("attributes.^\u{e9} = \"a\"", "the key"),
        ("attributes:iana^.org", "double quotes around a key"),
        ("attributes:caf^\u{e9}", "double quotes around a key"),
        ("attributes.a^", "= or !="),
        ("attributes.a ^> \"1\"", "= or !="),
        ("attributes.a =^= \"1\"", "a text in double quotes"),
        ("attributes.a = ^com", "a text in double quotes"),
        ("attributes.a = ^'com'", "a text in double quotes"),
        ("attributes.a = ^", "a text in double quotes"),
        ("attributes.a ^! \"x\"", "= or !="),
        ("attributes.a = \"com^", "a closing double quote"),
        ("attributes.a = \"é^\\q\"", "an escape"),
        ("attributes.a = \"^\\x4\"", "an escape"),
        ("attributes.a = \"^\\u30G0\"", "an escape"),
        ("attributes.a = \"^\\u+123\"", "an escape"),
        ("attributes.a = \"^\\uD83D\"", "an escape"),
        ("attributes.a = \"^\\uD83Dx\\uDE00\"", "an escape"),
        ("attributes.a = \"^\\uDE00\"", "an escape"),
        ("attributes.a = \"^\\400\"", "an escape"),
        ("attributes.a = \"^\\8\"", "an escape"),
        ("attributes.a = \"^\\", "an escape"),
        ("hasPrefix^ attributes.a", "an opening parenthesis"),
        ("hasPrefix(^a, \"b\")", "attributes.KEY"),
        ("hasPrefix(attributes^:a, \"b\")", "attributes.KEY"),
        ("hasPrefix(attributes.a^)", "a comma"),
        ("hasPrefix(attributes.a, ^b)", "a text in double quotes"),
        ("hasPrefix(attributes.a, \"b\"^, \"c\")", "a closing parenthesis after"),
        ("\"attributes:a\"", "a condition"),
    ] {
        let text = marked.replace('^', "");
        let err = Filter::parse(&text).unwrap_err();
        let position = marked.chars().position(|c| c == '^').map_or(1, |at| at + 1);
        // White space before the position belongs to what was read.
        let skipped = text.chars().skip(position - 1).take_while(char::is_ascii_whitespace).count();
        assert_eq!(err.position, position + skipped, "{marked}: {err}");
        assert!(
            err.expected.starts_with(expected) || err.expected.contains(expected),
            "{marked}: {err}"
        );
    }
}

#[test]
fn limits_are_named() {
    let long = format!("attributes:{}", "a".repeat(FILTER_BYTES_MAX - "attributes:".len()));
    parse(&long);
    let err = Filter::parse(&format!("{long}a")).unwrap_err();
    assert_eq!(err.position, FILTER_BYTES_MAX + 1);
    assert!(err.expected.contains(&FILTER_BYTES_MAX.to_string()), "{err}");

    let many = |count| vec!["attributes:a"; count].join(" OR ");
    parse(&many(FILTER_CONDITIONS_MAX));
    let err = Filter::parse(&many(FILTER_CONDITIONS_MAX + 1)).unwrap_err();
    assert_eq!(err.position, many(FILTER_CONDITIONS_MAX).len() + " OR ".len() + 1);
    assert!(err.expected.contains(&format!("{FILTER_CONDITIONS_MAX} conditions")), "{err}");

    for (open, close) in [("(", ")"), ("NOT ", ""), ("-", "")] {
        let deep = |depth| format!("{}attributes:a{}", open.repeat(depth), close.repeat(depth));
        parse(&deep(FILTER_DEPTH_MAX));
        let err = Filter::parse(&deep(FILTER_DEPTH_MAX + 1)).unwrap_err();
        assert!(err.expected.contains(&format!("{FILTER_DEPTH_MAX} deep")), "{err}");
    }
}

#[test]
fn equal_filters_have_one_canonical_form() {
    for (texts, canonical) in [
        (
            &[
                "attributes.a=\"1\" AND attributes:b",
                "((attributes:\"b\")) AND attributes.a=\"\\x31\"",
            ][..],
            "attributes:b AND attributes.a = \"1\"",
        ),
        (
            &["attributes:a OR (attributes:b OR attributes:a)", "attributes:b OR attributes:a"],
            "attributes:a OR attributes:b",
        ),
        (&["NOT attributes.a = \"x\"", "-attributes.a=\"x\""], "attributes.a != \"x\""),
        (&["NOT -attributes:a", "attributes:a AND attributes:a"], "attributes:a"),
        (
            &["-(attributes:b OR attributes:a) AND attributes:\"c d\""],
            "attributes:\"c d\" AND NOT (attributes:a OR attributes:b)",
        ),
        (
            &["hasPrefix( attributes.\"\" ,\"\\\\\\\"\" )"],
            "hasPrefix(attributes.\"\", \"\\\\\\\"\")",
        ),
    ] {
        for text in texts {
            assert_eq!(parse(text).as_str(), canonical, "{text}");
            assert_eq!(parse(text), parse(canonical));
        }
    }
}

#[test]
fn a_filter_is_within_the_filters_whose_conditions_it_has() {
    let of_tenant = parse("attributes.tenant = \"7\"");
    let asked = parse("attributes:a OR attributes.tenant = \"8\"");
    let both = of_tenant.and(&asked);
    assert_eq!(both, asked.and(&of_tenant));
    assert_eq!(both, both.and(&of_tenant));
    assert!(both.is_within(&of_tenant) && both.is_within(&asked) && both.is_within(&both));
    assert!(!of_tenant.is_within(&both) && !asked.is_within(&of_tenant));
    assert!(shows(&both, &attributes(&[("tenant", "7"), ("a", "")])));
    assert!(!shows(&both, &attributes(&[("tenant", "8"), ("a", "")])));
}

/// Random filter: its text, and its value for each of the messages in [`messages`].
#[derive(Debug, Clone)]
struct Case {
    text: String,
    is_joined: bool,
    shown: Vec<bool>,
}

/// All messages with attributes `a`, `b.c` and `é`, each of which is absent or has one of a few
/// values.
fn messages() -> Vec<Attributes> {
    let keys = ["a", "b.c", "é"];
    let values = [None, Some(""), Some("x"), Some("xy"), Some("\"\\\n")];
    (0..values.len().pow(3))
        .map(|n| {
            let value = |at: u32| values[n / values.len().pow(at) % values.len()];
            let pairs = (0..3).filter_map(|at| Some((keys[at as usize], value(at)?)));
            attributes(&pairs.collect::<Vec<_>>())
        })
        .collect()
}

/// Writes each character of a text in one of the ways that the language has, as `way` selects.
fn written(text: &str, way: usize) -> String {
    let chars = text.chars().map(|c| match (way % 4, c) {
        (0, '"' | '\\') => format!("\\{c}"),
        (0, _) => c.to_string(),
        (1, _) => format!("\\u{:04X}", u32::from(c)),
        (2, _) => format!("\\x{:02x}", u32::from(c)),
        _ => format!("\\{:03o}", u32::from(c)),
    });
    format!("\"{}\"", chars.collect::<String>())
}

fn condition() -> impl Strategy<Value = Case> {
    let keys = prop::sample::select(&["a", "b.c", "é"]);
    let values = prop::sample::select(&["", "x", "xy", "\"\\\n", "z"]);
    (keys, values, 0..4_usize, 0..4_usize, "[ \t\n]?").prop_map(|(key, value, kind, way, space)| {
        let name = if key == "a" && way == 0 { key.to_owned() } else { written(key, way) };
        let quoted = written(value, way / 2);
        let (text, is_shown): (String, IsShown) = match kind {
            0 => (format!("attributes:{name}"), |found, _| found.is_some()),
            1 => (format!("attributes.{name}{space}={space}{quoted}"), |found, value| {
                found == Some(value)
            }),
            2 => (format!("attributes.{name}{space}!={space}{quoted}"), |found, value| {
                found != Some(value)
            }),
            _ => (format!("hasPrefix({space}attributes.{name},{quoted})"), |found, value| {
                found.is_some_and(|found| found.get(..value.len()) == Some(value))
            }),
        };
        let found = |message: &Attributes| is_shown(message.get(key).map(String::as_str), value);
        Case { text, is_joined: false, shown: messages().iter().map(found).collect() }
    })
}

fn joined(operands: &[Case], is_and: bool) -> Case {
    let in_parentheses = |case: &Case| {
        if case.is_joined { format!("({})", case.text) } else { case.text.clone() }
    };
    let texts: Vec<_> = operands.iter().map(in_parentheses).collect();
    let count = |at: usize| operands.iter().filter(|case| case.shown[at]).count();
    let is_shown = |at| if is_and { count(at) == operands.len() } else { 0 < count(at) };
    Case {
        text: texts.join(if is_and { " AND " } else { " OR " }),
        is_joined: 1 < operands.len(),
        shown: (0..messages().len()).map(is_shown).collect(),
    }
}

fn case() -> impl Strategy<Value = Case> {
    condition().prop_recursive(3, 12, 3, |inner| {
        let operands = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            (operands, any::<bool>()).prop_map(|(operands, is_and)| joined(&operands, is_and)),
            (inner, prop::sample::select(&["NOT ", "-", "NOT\n"])).prop_map(|(case, not)| Case {
                text: if case.is_joined {
                    format!("{not}({})", case.text)
                } else {
                    not.to_owned() + &case.text
                },
                is_joined: false,
                shown: case.shown.iter().map(|shown| !shown).collect(),
            }),
        ]
    })
}

proptest! {
    #[test]
    fn random_filters_match_as_evaluated_independently(case in case()) {
        prop_assume!(case.text.len() <= FILTER_BYTES_MAX);
        let filter = parse(&case.text);
        let again = Filter::parse_canonical(filter.as_str()).unwrap();
        prop_assert_eq!(&again, &filter, "{}", case.text);
        for (message, shown) in messages().iter().zip(&case.shown) {
            prop_assert_eq!(shows(&filter, message), *shown, "{} on {:?}", case.text, message);
            prop_assert_eq!(shows(&again, message), *shown, "{} on {:?}", filter.as_str(), message);
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused_at_a_position_in_it(
        text in "(attributes|hasPrefix|[ :.=!(),\"\\\\-]|AND|OR|NOT|a|é){0,20}"
    ) {
        match Filter::parse(&text) {
            Ok(filter) => prop_assert_eq!(&parse(filter.as_str()), &filter),
            Err(err) => prop_assert!((1..=text.chars().count() + 1).contains(&err.position)),
        }
    }
}
