//! What is checked before a configuration is read whole: that it is JSON, its name, its version.

use super::{MAX_NAME, MAX_SIZE};
use crate::error::CniError;
use crate::fields::lookup;
use crate::report::quote;
use crate::request::is_identifier;
use crate::version::Version;
use serde_json::Value;

pub(super) fn not_an_object() -> CniError {
    CniError::decode("the network configuration on stdin must be a JSON object")
}

/// JSON of bounded size and depth (serde_json stops at 128 levels).
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, CniError> {
    if bytes.len() > MAX_SIZE {
        return Err(CniError::decode("the network configuration on stdin is larger than 1 MiB"));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        let msg = "the network configuration on stdin is not JSON; see the file in the runtime's conf dir";
        CniError::decode(msg).with_details(error.to_string())
    })?;
    if value.is_object() { Ok(value) } else { Err(not_an_object()) }
}

/// A text at the top level, read before anything else is; absent is empty.
fn early_text<'a>(raw: &'a Value, key: &str) -> Result<&'a str, ()> {
    match raw.as_object().and_then(|map| lookup(map, key)) {
        None | Some((_, Value::Null)) => Ok(""),
        Some((_, Value::String(text))) => Ok(text),
        Some(_) => Err(()),
    }
}

/// # Errors
/// Code 7 unless there is a valid network name (spec, "Network configuration format").
pub(crate) fn check_name(raw: &Value) -> Result<(), CniError> {
    match early_text(raw, "name") {
        Ok("") => Err(CniError::config("missing network name: the configuration needs the key name")),
        Ok(name) if is_identifier(name) && name.len() <= MAX_NAME => Ok(()),
        Ok(name) => {
            let rule = "must start with a letter or digit and hold only those, '_', '.' and '-', at most 253";
            Err(CniError::config(format!("name: {rule}; found {}", quote(name))))
        }
        Err(()) => Err(CniError::config("name: expected a text")),
    }
}

/// # Errors
/// Code 1 for a version that this build does not know.
pub(crate) fn check_version(raw: &Value) -> Result<Version, CniError> {
    let text = early_text(raw, "cniVersion")
        .map_err(|()| CniError::config("cniVersion: expected a text such as \"1.0.0\""))?;
    Version::parse(text).ok_or_else(|| {
        let known = Version::ALL.map(Version::as_str).join(" ");
        CniError::incompatible_version(format!(
            "incompatible CNI versions: cniVersion is {}, use one of {known}",
            quote(text)
        ))
        .with_details(format!("config is {}, plugin supports [{known}]", quote(text)))
    })
}
