//! Reading JSON that people wrote: typed values, the path of each in what is said about it, and
//! every problem at once. A key matches as in Go's decoder: exactly, else whatever its case;
//! `null` is the same as an absent key.

use crate::addr;
use crate::report::{Problem, Report, Warning, clip, quote};
use ipnet::IpNet;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Most items that a list may have; longer ones are a problem.
pub const MAX_ITEMS: usize = 1024;
/// Longest text value, in bytes (a path, an address, a name).
const MAX_TEXT: usize = 4096;

/// The entry of `key` in an object, `null` included.
pub fn lookup<'a>(map: &'a Map<String, Value>, key: &str) -> Option<(&'a String, &'a Value)> {
    map.get_key_value(key).or_else(|| map.iter().find(|(other, _)| other.eq_ignore_ascii_case(key)))
}

/// One JSON object on its way into a struct.
pub struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
    used: RefCell<Vec<&'a str>>,
    report: &'a Report,
}

impl<'a> Fields<'a> {
    pub fn root(map: &'a Map<String, Value>, report: &'a Report) -> Self {
        Self::new(String::new(), map, report)
    }

    fn new(path: String, map: &'a Map<String, Value>, report: &'a Report) -> Self {
        Self { path, map, used: RefCell::default(), report }
    }

    /// The path of `key` in this object.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value under `key`, `null` included.
    pub fn raw(&self, key: &str) -> Option<&'a Value> {
        #[cfg(test)]
        self.report.asked.borrow_mut().insert(self.path_of(key));
        let (name, value) = lookup(self.map, key)?;
        self.used.borrow_mut().push(name);
        Some(value)
    }

    /// The value under `key` with its path, unless absent or `null`.
    pub fn at(&self, key: &str) -> Option<At<'a>> {
        let value = self.raw(key).filter(|value| !value.is_null())?;
        Some(At { path: self.path_of(key), value, report: self.report })
    }

    /// The value under `key` as `read` makes of it; a problem counts as absent.
    pub fn get<T>(&self, key: &str, read: impl FnOnce(&At<'a>) -> Option<T>) -> Option<T> {
        self.at(key).and_then(|at| read(&at))
    }

    pub fn string(&self, key: &str) -> Option<String> {
        self.get(key, At::string)
    }

    /// A text, or the empty one.
    pub fn text(&self, key: &str) -> String {
        self.string(key).unwrap_or_default()
    }

    /// A switch that is off unless set.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key, At::boolean).unwrap_or_default()
    }

    /// A path; the empty text counts as absent.
    pub fn file(&self, key: &str) -> Option<PathBuf> {
        self.get(key, At::file).filter(|path| !path.as_os_str().is_empty())
    }

    /// The items of the list under `key` that `read` could use.
    pub fn list<T>(&self, key: &str, read: impl Fn(&At<'a>) -> Option<T>) -> Vec<T> {
        let items = self.get(key, At::items).unwrap_or_default();
        items.iter().filter_map(read).collect()
    }

    /// Keys that are known and mean nothing to us.
    pub fn skip(&self, keys: &[&str]) {
        for key in keys {
            let _value = self.raw(key);
        }
    }

    pub fn doubtful(&self, key: &str, reason: &'static str) {
        self.report.warn(Warning::Doubtful { path: self.path_of(key), reason });
    }

    pub fn problem(&self, key: &str, expected: &str, found: &str) {
        self.report.problem(Problem {
            path: self.path_of(key),
            expected: expected.to_owned(),
            found: found.to_owned(),
        });
    }

    /// Warns of every key that nobody asked for.
    pub fn finish(self) {
        let used = self.used.borrow();
        let unknown = self.map.keys().filter(|key| !used.contains(&key.as_str()));
        for key in unknown {
            self.report.warn(Warning::UnknownKey { path: self.path_of(&clip(key)) });
        }
    }
}

/// One JSON value with the path that leads to it.
pub struct At<'a> {
    pub path: String,
    pub value: &'a Value,
    report: &'a Report,
}

impl<'a> At<'a> {
    /// Notes that this value is not what it should be. Returns `None` for `?`-style use.
    pub fn wrong<T>(&self, expected: &str) -> Option<T> {
        self.wrong_because(expected, &describe(self.value))
    }

    pub fn wrong_because<T>(&self, expected: &str, found: &str) -> Option<T> {
        self.report.problem(Problem {
            path: self.path.clone(),
            expected: expected.to_owned(),
            found: found.to_owned(),
        });
        None
    }

    /// Notes a value that the caller replaces by a default.
    pub fn ignore<T>(&self, expected: &str) -> Option<T> {
        let problem =
            Problem { path: self.path.clone(), expected: expected.to_owned(), found: describe(self.value) };
        self.report.warn(Warning::Ignored(problem));
        None
    }

    pub fn doubtful(&self, reason: &'static str) {
        self.report.warn(Warning::Doubtful { path: self.path.clone(), reason });
    }

    /// A text of bounded length without NUL, which no path, name or message could carry.
    pub fn string(&self) -> Option<String> {
        self.str_that("a text", |text| Some(text.to_owned()))
    }

    /// A text that `convert` understands.
    pub fn str_that<T>(&self, expected: &str, convert: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.value.as_str().filter(|text| text.len() <= MAX_TEXT && !text.contains('\0'));
        text.and_then(convert).or_else(|| self.wrong(expected))
    }

    /// A text that is never shown.
    pub fn secret(&self) -> Option<String> {
        let text = self.value.as_str().filter(|text| !text.contains('\0'));
        text.map(str::to_owned).or_else(|| self.wrong_because("a text", kind(self.value)))
    }

    pub fn boolean(&self) -> Option<bool> {
        self.value.as_bool().or_else(|| self.wrong("true or false"))
    }

    /// A whole number within `range`.
    pub fn number(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.value.as_u64().filter(|number| range.contains(number));
        number.or_else(|| self.wrong(&format!("a whole number from {} to {}", range.start(), range.end())))
    }

    /// A whole number that fits `u32`.
    pub fn number_u32(&self, range: RangeInclusive<u32>) -> Option<u32> {
        self.number(u64::from(*range.start())..=u64::from(*range.end())).and_then(|n| u32::try_from(n).ok())
    }

    /// An absolute path, or the empty one.
    pub fn file(&self) -> Option<PathBuf> {
        let absolute = |text: &str| (text.is_empty() || is_absolute(text)).then(|| PathBuf::from(text));
        self.str_that("an absolute path", absolute)
    }

    pub fn address(&self) -> Option<IpAddr> {
        self.parsed("an IP address such as 10.0.0.5 or fd00::5", addr::parse_ip)
    }

    /// A network or an address with its prefix length, host bits kept.
    pub fn network(&self) -> Option<IpNet> {
        self.parsed("an IP network such as 10.0.0.0/16 or fd00::/64", addr::parse_net)
    }

    fn parsed<T>(&self, expected: &str, parse: fn(&str) -> Result<T, addr::AddrError>) -> Option<T> {
        let Some(text) = self.value.as_str().filter(|text| text.len() <= MAX_TEXT) else {
            return self.wrong(expected);
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => self.wrong_because(expected, &format!("{} ({why})", quote(text))),
        }
    }

    /// An object whose keys are all ours to know.
    pub fn object<T>(&self, read: impl FnOnce(&Fields<'a>) -> T) -> Option<T> {
        let fields = self.fields()?;
        let value = read(&fields);
        fields.finish();
        Some(value)
    }

    /// An object that may hold what others put there.
    pub fn fields(&self) -> Option<Fields<'a>> {
        let Some(map) = self.value.as_object() else { return self.wrong("an object") };
        Some(Fields::new(self.path.clone(), map, self.report))
    }

    /// The items of a list, `null` ones left out.
    pub fn items(&self) -> Option<Vec<At<'a>>> {
        let Some(list) = self.value.as_array() else { return self.wrong("a list") };
        if list.len() > MAX_ITEMS {
            return self.wrong_because(&format!("at most {MAX_ITEMS} items"), &list.len().to_string());
        }
        Some(self.every_item(list))
    }

    /// The items of a list whose length only the size of the document bounds.
    pub fn items_unbounded(&self) -> Option<Vec<At<'a>>> {
        let Some(list) = self.value.as_array() else { return self.wrong("a list") };
        Some(self.every_item(list))
    }

    fn every_item(&self, list: &'a [Value]) -> Vec<At<'a>> {
        let present = list.iter().enumerate().filter(|(_, value)| !value.is_null());
        present
            .map(|(i, value)| At { path: format!("{}[{i}]", self.path), value, report: self.report })
            .collect()
    }
}

/// Absolute on the systems the plugin runs on, told from the text alone: `/x`, `C:\x`, `\\x`.
fn is_absolute(text: &str) -> bool {
    let bytes = text.as_bytes();
    let drive = bytes.len() > 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':';
    text.starts_with(['/', '\\']) || drive
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        other => kind(other).to_owned(),
    }
}
