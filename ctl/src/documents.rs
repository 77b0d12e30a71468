//! Files of resources: YAML documents or JSON values, lists taken apart.
//!
//! YAML is read and written by serde-saphyr: maintained, pure Rust, and bounded in depth, nodes and
//! aliases, where the usual choice (serde_yaml) is archived.

use crate::outcome::usage;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// Most resources in one file.
const MAX_DOCUMENTS: usize = 10_000;

/// A value and where it came from, for messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub from: String,
    pub value: Value,
}

/// Reads every document of a file; `-` is standard input.
pub fn read(file: &Path) -> Result<Vec<Document>> {
    let name = if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() };
    let text = read_text(file, MAX_FILE).with_context(|| format!("reading {name}"))?;
    let documents = parse(&name, &text)?;
    if documents.is_empty() {
        bail!(usage(format!("{name} holds no document")));
    }
    Ok(documents)
}

/// Reads a file of at most `limit` bytes as text; `-` is standard input.
pub fn read_text(file: &Path, limit: u64) -> Result<String> {
    let mut source: Box<dyn Read> =
        if is_stdin(file) { Box::new(io::stdin()) } else { Box::new(File::open(file)?) };
    let mut bytes = Vec::new();
    source.by_ref().take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        bail!("more than the {} MiB that are read", limit >> 20);
    }
    String::from_utf8(bytes).context("not UTF-8 text")
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Splits text into documents; the items of a list are documents of their own.
pub fn parse(name: &str, text: &str) -> Result<Vec<Document>> {
    let values = parse_values(text).with_context(|| format!("parsing {name}"))?;
    let mut documents = Vec::new();
    for (at, value) in values.into_iter().enumerate() {
        flatten(&format!("{name} document {}", at + 1), value, &mut documents)?;
        if documents.len() > MAX_DOCUMENTS {
            bail!("{name} holds more than {MAX_DOCUMENTS} resources");
        }
    }
    Ok(documents)
}

/// JSON first where it looks like JSON: YAML refuses the tabs that JSON may be indented with.
fn parse_values(text: &str) -> Result<Vec<Value>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return parse_yaml(text);
    }
    match serde_json::Deserializer::from_str(text).into_iter().collect() {
        Ok(values) => Ok(values),
        Err(json) => parse_yaml(text).map_err(|_| json.into()),
    }
}

/// Parses one value, as for `--patch`.
pub fn parse_one(text: &str) -> Result<Value> {
    let mut values = parse_values(text)?;
    match values.len() {
        1 => Ok(values.remove(0)),
        n => bail!("{n} documents where one is needed"),
    }
}

fn parse_yaml(text: &str) -> Result<Vec<Value>> {
    // Documents of comments alone are null.
    let values = serde_saphyr::from_multiple::<Value>(text)?;
    Ok(values.into_iter().filter(|v| !v.is_null()).collect())
}

fn flatten(from: &str, value: Value, into: &mut Vec<Document>) -> Result<()> {
    let items = match value {
        Value::Array(items) => items,
        Value::Object(mut list) if is_list(&list) => match list.remove("items") {
            Some(Value::Array(items)) => items,
            _ => bail!("{from}: items: a list is needed"),
        },
        value => {
            into.push(Document { from: from.to_owned(), value });
            return Ok(());
        }
    };
    for (at, value) in items.into_iter().enumerate() {
        into.push(Document { from: format!("{from} item {}", at + 1), value });
    }
    Ok(())
}

/// `List` and `IPPoolList` alike.
fn is_list(object: &serde_json::Map<String, Value>) -> bool {
    let kind = object.get("kind").and_then(Value::as_str);
    kind.is_some_and(|k| k.ends_with("List")) && object.contains_key("items")
}

/// A value as YAML.
pub fn to_yaml(value: &Value) -> Result<String> {
    Ok(serde_saphyr::to_string(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(text: &str) -> Vec<Value> {
        parse("f", text).unwrap().into_iter().map(|d| d.value).collect()
    }

    #[test]
    fn yaml_documents_json_values_and_lists_are_all_documents() {
        assert_eq!(values("a: 1\n---\n# nothing\n---\nb: [x]\n"), [json!({"a": 1}), json!({"b": ["x"]})]);
        assert_eq!(values("{\n\t\"a\": 1\n}\n{\"b\": 2}"), [json!({"a": 1}), json!({"b": 2})]);
        assert_eq!(values("{a: 1}"), [json!({"a": 1})]);
        assert_eq!(values("kind: IPPoolList\nitems:\n- a: 1\n- b: 2\n"), [json!({"a": 1}), json!({"b": 2})]);
        assert_eq!(values(r#"[{"a":1}]"#), [json!({"a": 1})]);
    }

    #[test]
    fn errors_name_the_file_and_the_place() {
        for (text, wanted) in [("a: b: c", "line 1"), ("{\"a\": 1", "line 1"), ("a: 1\na: 2", "line 2")] {
            let error = format!("{:#}", parse("pools.yaml", text).unwrap_err());
            assert!(error.contains("pools.yaml") && error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn hostile_files_end_in_an_error() {
        let line = |c: u8| {
            let (name, before) = (c as char, (c - 1) as char);
            format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(","))
        };
        let aliases: String = (b'b'..b'n').map(line).collect();
        for text in [format!("a: &a [1]\n{aliases}"), "[".repeat(100_000), "{\"a\":".repeat(100_000)] {
            assert!(parse("f", &text).is_err());
        }
    }

    #[test]
    fn yaml_comes_back_as_it_went_out() {
        let value =
            json!({"name": "no", "on": true, "n": "1.0", "text": "a\nb\n", "list": [{"a": "x: y"}], "e": {}});
        assert_eq!(parse_one(&to_yaml(&value).unwrap()).unwrap(), value);
    }
}
