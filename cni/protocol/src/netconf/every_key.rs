//! A wrong type in every known key, and proof that the list of known keys is complete.

use super::{Mode, NetConf};
use crate::error::Code;
use crate::fields::Fields;
use crate::report::Report;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const DOCUMENTS: [&str; 2] = [
    include_str!("../../../../testdata/cni/every-key-pools.json"),
    include_str!("../../../../testdata/cni/every-key-ranges.json"),
];

/// Keys whose values are another plugin's, or nobody's.
const UNTYPED: [&str; 9] = [
    "cniVersions",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "etcd_scheme",
    "etcd_authority",
    "args.labels",
    "ipam.name",
    "runtimeConfig.portMappings",
];

fn documents() -> impl Iterator<Item = Value> {
    DOCUMENTS.iter().map(|text| serde_json::from_str(text).unwrap())
}

/// Every value below `value` as (path for people, JSON pointer), parents first.
fn paths(value: &Value, path: &str, pointer: &str, out: &mut Vec<(String, String)>) {
    let mut child = |path: String, key: &str, value: &Value| {
        let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
        out.push((path.clone(), pointer.clone()));
        paths(value, &path, &pointer, out);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            let dotted = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            child(dotted, key, value);
        }),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| {
            child(format!("{path}[{i}]"), &i.to_string(), value);
        }),
        _ => {}
    }
}

fn all_paths(document: &Value) -> Vec<(String, String)> {
    let mut out = Vec::new();
    paths(document, "", "", &mut out);
    out
}

fn wrong_type(value: &Value) -> Value {
    match value {
        Value::String(_) | Value::Object(_) => json!(12345),
        Value::Number(_) => json!("x"),
        Value::Bool(_) => json!("perhaps"),
        Value::Array(_) => json!({"a": 1}),
        Value::Null => json!([]),
    }
}

/// Each document with a wrong type at one place, and that place.
fn mutations() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for document in documents() {
        for (path, pointer) in all_paths(&document) {
            if UNTYPED.iter().any(|key| path.starts_with(key)) {
                continue;
            }
            let mut changed = document.clone();
            let place = changed.pointer_mut(&pointer).unwrap();
            *place = wrong_type(place);
            all.push((path, changed));
        }
    }
    assert!(all.len() > 150, "only {} places", all.len());
    all
}

fn without_indexes(path: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in path.chars() {
        inside = (inside || c == '[') && c != ']';
        if !inside && c != ']' {
            out.push(c);
        }
    }
    out
}

#[test]
fn every_document_is_understood_whole() {
    for document in documents() {
        let parsed = NetConf::from_value(document, Mode::Strict).unwrap();
        assert_eq!(parsed.warnings, [], "nothing in it is unknown or doubtful");
    }
}

#[test]
fn a_wrong_type_names_its_key_unless_it_is_about_the_log() {
    for (path, document) in mutations() {
        match NetConf::from_value(document, Mode::Strict) {
            Ok(parsed) => {
                assert!(path.starts_with("log_"), "{path} took a wrong type in silence");
                let named = parsed.warnings.iter().any(|warning| warning.to_string().starts_with(&path));
                assert!(named, "{path}: {:?}", parsed.warnings);
            }
            Err(error) => {
                assert!(!path.starts_with("log_"), "a log key failed a pod: {error}");
                assert_eq!(error.code, Code::InvalidConfig, "{path}: {error}");
                assert!(error.msg.contains(&path), "{path} is not named: {error}");
            }
        }
    }
}

#[test]
fn no_error_shows_a_secret() {
    for (path, document) in mutations() {
        if let Err(error) = NetConf::from_value(document, Mode::Strict) {
            assert!(!error.to_string().contains("secret"), "{path}: {error}");
        }
    }
}

#[test]
fn clean_up_goes_on_after_a_bad_value_that_does_not_say_where() {
    let mut refused = BTreeSet::new();
    for (path, document) in mutations() {
        if NetConf::from_value(document, Mode::Tolerant).is_err() {
            refused.insert(path.split(['.', '[']).next().unwrap().to_owned());
        }
    }
    let stop = [
        "attachment_dir",
        "cni",
        "cniVersion",
        "datastore_path",
        "datastore_type",
        "etcd_discovery_srv",
        "etcd_endpoints",
        "hostname",
        "ipam",
        "ipam_lock_file",
        "kubernetes",
        "name",
        "nodename",
        "nodename_file",
        "state_dir",
        "type",
    ];
    assert_eq!(refused.iter().map(String::as_str).collect::<Vec<_>>(), stop);
}

#[test]
fn the_documents_and_the_readme_have_every_key() {
    let readme = include_str!("../../README.md");
    let mut asked = BTreeSet::new();
    let mut shown = BTreeSet::new();
    for document in documents() {
        let report = Report::default();
        let _conf = NetConf::read(&Fields::root(document.as_object().unwrap(), &report));
        asked.extend(report.asked.borrow().iter().map(|path| without_indexes(path)));
        shown.extend(all_paths(&document).iter().map(|(path, _)| without_indexes(path)));
    }
    shown.insert("cniVersion".to_owned());
    for path in &asked {
        assert!(shown.contains(path) || is_result_alias(path), "{path} is in no test document");
        let key = path.rsplit(['.']).next().unwrap();
        assert!(path.starts_with("prevResult") || readme.contains(key), "{path} is not in README.md");
    }
}

/// Keys of a result that only the other layout has.
fn is_result_alias(path: &str) -> bool {
    path.starts_with("prevResult.ip4.routes.")
        || path.starts_with("prevResult.ip6.routes.")
        || matches!(path, "prevResult.ip4.interface" | "prevResult.ip6.interface")
        || path.starts_with("ipam.routes.")
}
