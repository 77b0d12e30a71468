//! What is said about a document: what is wrong in it, what is odd, and where.

use std::cell::RefCell;
use std::fmt;

/// Most problems, and most warnings, kept of one document; further ones are dropped.
const MAX_REPORTED: usize = 64;

/// A known key with a value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `ipam.pools[1].cidr`.
    pub path: String,
    /// What is right there.
    pub expected: String,
    /// What is there instead. Never the value of a secret.
    pub found: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.path, self.expected, self.found)
    }
}

/// Something to log that does not stand in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A key that means nothing here.
    UnknownKey { path: String },
    /// A bad value that was replaced by the default.
    Ignored(Problem),
    /// A value that is taken, but seldom meant.
    Doubtful { path: String, reason: &'static str },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::UnknownKey { path } => write!(f, "{path}: unknown key, ignored"),
            Warning::Ignored(problem) => write!(f, "{problem}; the default is used"),
            Warning::Doubtful { path, reason } => write!(f, "{path}: {reason}"),
        }
    }
}

/// What was noticed while a document was read.
#[derive(Debug, Default)]
pub struct Report {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Warning>>,
    /// Every key that was asked for, for the test that tries each with a wrong type.
    #[cfg(test)]
    pub asked: RefCell<std::collections::BTreeSet<String>>,
}

impl Report {
    pub fn problem(&self, problem: Problem) {
        push_bounded(&self.problems, problem);
    }

    pub fn warn(&self, warning: Warning) {
        push_bounded(&self.warnings, warning);
    }

    pub fn into_parts(self) -> (Vec<Problem>, Vec<Warning>) {
        (self.problems.into_inner(), self.warnings.into_inner())
    }
}

fn push_bounded<T>(list: &RefCell<Vec<T>>, item: T) {
    let mut list = list.borrow_mut();
    if list.len() < MAX_REPORTED {
        list.push(item);
    }
}

/// The first characters of a text that somebody else chose, in quotes and escaped.
pub fn quote(text: &str) -> String {
    format!("{:?}", clip(text))
}

/// The first characters of a text that somebody else chose.
pub fn clip(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
