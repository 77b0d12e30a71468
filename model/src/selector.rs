//! Calico's selector language over labels.
//!
//! ```text
//! or      = and { "||" and }
//! and     = unary { "&&" unary }
//! unary   = "!" unary | primary
//! primary = "(" or ")" | "all()" | "global()" | "has(" label ")" | label test
//! test    = "==" string | "!=" string | [ "not" ] "in" "{" [ string { "," string } ] "}"
//!         | "contains" string | "starts with" string | "ends with" string
//! label   = [A-Za-z0-9_./-]+        string = '...' or "..." without escapes
//! ```
//! Empty text selects everything. `!=` and `not in` hold where the label is absent.

mod parse;

use std::collections::{BTreeMap, BTreeSet};

/// Longest text that is parsed, in bytes.
pub const MAX_TEXT: usize = 64 << 10;

/// Deepest nesting of `!` and parentheses.
pub const MAX_DEPTH: usize = 100;

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Expr);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expr {
    All,
    Has(String),
    Test(String, Test),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Equal(String),
    Unequal(String),
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Contains(String),
    StartsWith(String),
    EndsWith(String),
}

/// Text that is no selector: where, and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {position}: {fault}")]
pub struct SelectorError {
    /// Byte offset into the text.
    pub position: usize,
    pub fault: Fault,
}

/// What is wrong with a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the text is longer than {MAX_TEXT} bytes")]
    TooLong,
    #[error("nested deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("a character that no selector has")]
    Character,
    #[error("a string without its closing quote")]
    OpenString,
    #[error("expected {0}")]
    Expected(&'static str),
}

impl Selector {
    /// Parses a selector; empty text selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::parse(text).map(Selector)
    }

    /// Whether it selects something with these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        eval(&self.0, labels)
    }

    /// Whether it is `all()`, which needs no labels to be known.
    pub fn is_all(&self) -> bool {
        self.0 == Expr::All
    }
}

fn eval(expr: &Expr, labels: &BTreeMap<String, String>) -> bool {
    match expr {
        Expr::All => true,
        Expr::Has(label) => labels.contains_key(label),
        Expr::Test(label, test) => holds(test, labels.get(label).map(String::as_str)),
        Expr::Not(inner) => !eval(inner, labels),
        Expr::And(parts) => parts.iter().all(|part| eval(part, labels)),
        Expr::Or(parts) => parts.iter().any(|part| eval(part, labels)),
    }
}

fn holds(test: &Test, value: Option<&str>) -> bool {
    let Some(value) = value else { return matches!(test, Test::Unequal(_) | Test::NotIn(_)) };
    match test {
        Test::Equal(wanted) => value == wanted,
        Test::Unequal(other) => value != other,
        Test::In(set) => set.contains(value),
        Test::NotIn(set) => !set.contains(value),
        Test::Contains(part) => value.contains(part.as_str()),
        Test::StartsWith(start) => value.starts_with(start.as_str()),
        Test::EndsWith(end) => value.ends_with(end.as_str()),
    }
}

#[cfg(test)]
mod tests;
