//! What members a resource may have, as data, and the check of a value against it.
//!
//! Everything that is wrong is told at once, each with its field's path.

use model::ip;
use serde_json::{Map, Value};
use std::fmt;

/// The form of a member.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Text,
    Bool,
    /// A whole number in this range.
    Int(u64, u64),
    /// A network, host bits clear.
    Net,
    /// An address.
    Ip,
    /// An address, or an address with the length of its subnet.
    Interface,
    /// A network or a single address.
    NetOrIp,
    /// An AS number: plain or as in 64512.1 (RFC 5396).
    AsNumber,
    Selector,
    OneOf(&'static [&'static str]),
    List(&'static Shape),
    /// Names to text.
    Texts,
    Object(&'static [Member]),
    /// Kept as it is.
    Any,
}

/// A member and its form.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub name: &'static str,
    pub shape: Shape,
}

/// Shorthand for tables.
pub const fn member(name: &'static str, shape: Shape) -> Member {
    Member { name, shape }
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path as in `spec.addresses[1].address`.
    pub field: String,
    pub text: String,
    /// The field itself is not known: fine where the stored object has it already.
    pub unknown: bool,
}

impl Problem {
    pub fn new(field: impl Into<String>, text: impl Into<String>) -> Self {
        Self { field: field.into(), text: text.into(), unknown: false }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.text)
    }
}

/// Checks `value`, found at `path`, and appends what is wrong. Null members count as absent.
pub fn check(path: &str, value: &Value, shape: &Shape, problems: &mut Vec<Problem>) {
    if value.is_null() {
        return;
    }
    match (shape, value) {
        (Shape::Any, _) => {}
        (Shape::Object(members), Value::Object(object)) => check_object(path, object, members, problems),
        (Shape::Texts, Value::Object(object)) => {
            object.iter().for_each(|(name, v)| check(&join(path, name), v, &Shape::Text, problems));
        }
        (Shape::List(item), Value::Array(items)) => {
            let at = |n: usize| format!("{path}[{n}]");
            items.iter().enumerate().for_each(|(n, v)| check(&at(n), v, item, problems));
        }
        _ => problems.extend(check_plain(value, shape).err().map(|text| Problem::new(path, text))),
    }
}

fn check_object(path: &str, object: &Map<String, Value>, members: &[Member], problems: &mut Vec<Problem>) {
    for (name, value) in object {
        match members.iter().find(|m| m.name == name) {
            Some(member) => check(&join(path, name), value, &member.shape, problems),
            None => problems.push(unknown(path, name, members)),
        }
    }
}

fn unknown(path: &str, name: &str, members: &[Member]) -> Problem {
    let known = members.iter().map(|m| m.name);
    let hint = match nearest(name, known.clone()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known are {}", known.collect::<Vec<_>>().join(", ")),
    };
    Problem { field: join(path, name), text: format!("unknown field; {hint}"), unknown: true }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn check_plain(value: &Value, shape: &Shape) -> Result<(), String> {
    match (shape, value) {
        (Shape::Bool, Value::Bool(_)) => Ok(()),
        (Shape::Int(low, high), Value::Number(n)) => {
            let fits = n.as_u64().is_some_and(|n| (*low..=*high).contains(&n));
            if fits { Ok(()) } else { Err(format!("{n} is not a whole number from {low} to {high}")) }
        }
        (Shape::AsNumber, Value::Number(n)) => as_number(&n.to_string()),
        (Shape::Bool | Shape::Int(..), _) => Err(wrong_type(value, shape)),
        (_, Value::String(text)) => check_text(text, shape),
        _ => Err(wrong_type(value, shape)),
    }
}

fn check_text(text: &str, shape: &Shape) -> Result<(), String> {
    match shape {
        Shape::Text => Ok(()),
        Shape::Net => check_net(text),
        Shape::Ip => ip::parse_ip(text).map(drop).map_err(|e| e.to_string()),
        Shape::Interface if !text.contains('/') => ip::parse_ip(text).map(drop).map_err(|e| e.to_string()),
        Shape::Interface => ip::parse_interface(text).map(drop).map_err(|e| e.to_string()),
        Shape::NetOrIp if !text.contains('/') => ip::parse_ip(text).map(drop).map_err(|e| e.to_string()),
        Shape::NetOrIp => check_net(text),
        Shape::AsNumber => as_number(text),
        Shape::Selector => check_selector(text),
        Shape::OneOf(words) => one_of(text, words),
        _ => Err(wrong_type(&Value::String(text.to_owned()), shape)),
    }
}

fn check_net(text: &str) -> Result<(), String> {
    let interface = ip::parse_interface(text).map_err(|e| e.to_string())?;
    match interface.trunc() {
        net if net == interface => Ok(()),
        net => Err(format!("{text} has host bits set; use {net}")),
    }
}

fn check_selector(text: &str) -> Result<(), String> {
    model::selector::Selector::parse(text).map(drop).map_err(|e| e.to_string())
}

fn one_of(text: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&text) {
        return Ok(());
    }
    let hint = nearest(text, words.iter().copied()).map(|w| format!("; did you mean {w}?"));
    Err(format!("{text:?} is not one of {}{}", words.join(", "), hint.unwrap_or_default()))
}

fn as_number(text: &str) -> Result<(), String> {
    let good = match text.split_once('.') {
        Some((high, low)) => high.parse::<u16>().is_ok() && low.parse::<u16>().is_ok(),
        None => text.parse::<u32>().is_ok(),
    };
    if good { Ok(()) } else { Err(format!("{text} is no AS number")) }
}

fn wrong_type(value: &Value, shape: &Shape) -> String {
    let quote = match (shape, value) {
        (Shape::Text, Value::Bool(_) | Value::Number(_)) => " (put it in quotes)",
        _ => "",
    };
    format!("{} is needed, not {}{quote}", wanted(shape), found(value))
}

fn wanted(shape: &Shape) -> &'static str {
    match shape {
        Shape::Text | Shape::OneOf(_) => "text",
        Shape::Bool => "true or false",
        Shape::Int(..) => "a whole number",
        Shape::Net => "a network such as 10.0.0.0/16",
        Shape::Ip => "an IP address",
        Shape::Interface => "an IP address, with or without a prefix length",
        Shape::NetOrIp => "an IP address or network",
        Shape::AsNumber => "an AS number",
        Shape::Selector => "a selector such as all()",
        Shape::List(_) => "a list",
        Shape::Texts => "a map of names to text",
        Shape::Object(_) => "an object",
        Shape::Any => "a value",
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => format!("the number {n}"),
        Value::String(text) => format!("the text {:?}", text.chars().take(60).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The word that is likely meant by `name`: at most a third of its letters differ.
pub fn nearest<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let best = words.map(|word| (distance(&name, &word.to_lowercase()), word)).min_by_key(|(d, _)| *d)?;
    (best.0 <= best.1.len().max(3) / 3).then_some(best.1)
}

/// Levenshtein distance; a name beyond 64 characters is no typing error.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SPEC: &[Member] = &[
        member("cidr", Shape::Net),
        member("natOutgoing", Shape::Bool),
        member("size", Shape::Int(20, 32)),
        member("mode", Shape::OneOf(&["Never", "Always"])),
        member("list", Shape::List(&Shape::NetOrIp)),
        member("labels", Shape::Texts),
        member("asNumber", Shape::AsNumber),
        member("selector", Shape::Selector),
        member("address", Shape::Interface),
    ];

    fn problems(value: Value) -> Vec<String> {
        let mut found = Vec::new();
        check("spec", &value, &Shape::Object(SPEC), &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_values_pass() {
        let good = json!({"cidr": "10.0.0.0/16", "natOutgoing": true, "size": 26, "mode": "Never", "list": ["10.0.0.1", "fd00::/64"],
            "labels": {"a": "b"}, "asNumber": 64512, "selector": "rack == 'r1'", "address": "10.0.0.5/24"});
        assert_eq!(problems(good), Vec::<String>::new());
        assert_eq!(
            problems(json!({"asNumber": "64512.7", "address": "fe80::1", "natOutgoing": null})),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_problem_names_its_field_and_says_what_is_needed() {
        let cases = [
            (json!({"natOutgoign": true}), "spec.natOutgoign: unknown field; did you mean natOutgoing?"),
            (json!({"cidr": "10.0.0.1/16"}), "spec.cidr: 10.0.0.1/16 has host bits set; use 10.0.0.0/16"),
            (json!({"cidr": 7}), "spec.cidr: a network such as 10.0.0.0/16 is needed, not the number 7"),
            (
                json!({"natOutgoing": "yes"}),
                "spec.natOutgoing: true or false is needed, not the text \"yes\"",
            ),
            (json!({"size": 33}), "spec.size: 33 is not a whole number from 20 to 32"),
            (json!({"size": 26.5}), "spec.size: 26.5 is not a whole number from 20 to 32"),
            (
                json!({"mode": "never"}),
                "spec.mode: \"never\" is not one of Never, Always; did you mean Never?",
            ),
            (
                json!({"labels": {"a": 1}}),
                "spec.labels.a: text is needed, not the number 1 (put it in quotes)",
            ),
            (json!({"asNumber": -1}), "spec.asNumber: -1 is no AS number"),
        ];
        for (value, wanted) in cases {
            assert_eq!(problems(value), [wanted]);
        }
        assert!(problems(json!({"list": ["10.0.0.1", "x"]}))[0].starts_with("spec.list[1]: "));
        assert!(problems(json!({"selector": "a =="}))[0].starts_with("spec.selector: "));
        assert!(problems(json!({"zzzzzzzzzz": 1}))[0].contains("known are cidr, "));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        assert_eq!(problems(json!({"cidr": "x", "size": 1, "nope": 2})).len(), 3);
    }
}
