//! How a command ends, and the exit status that says so.

use anyhow::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

const FAILED: u8 = 1;
const FOUND: u8 = 2;
const USAGE: u8 = 64;

/// How a command that ran to its end came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// A check found something wrong, and has printed it.
    Found,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => ExitCode::SUCCESS,
            Outcome::Found => ExitCode::from(FOUND),
        }
    }
}

/// The user asked for something that makes no sense; told apart from a failure by its exit status.
#[derive(Debug)]
pub struct BadUsage(pub String);

impl fmt::Display for BadUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUsage {}

/// Ends the command as bad usage.
pub fn usage(text: impl Into<String>) -> Error {
    Error::new(BadUsage(text.into()))
}

/// Prints an error with its causes and chooses the exit status.
pub fn report(error: &Error) -> ExitCode {
    if is_broken_pipe(error) {
        // `percalectl ... | head`: the reader has what it wanted.
        return ExitCode::SUCCESS;
    }
    say_error(&chain(error));
    ExitCode::from(if error.is::<BadUsage>() { USAGE } else { FAILED })
}

/// An error with its causes, but for those that an error before has quoted already.
pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Prints what clap has to say: help and version are no errors.
pub fn report_clap(error: &clap::Error) -> ExitCode {
    // Nothing can be done where even this cannot be printed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

fn is_broken_pipe(error: &Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes a command's output to stdout.
pub fn say(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.is_empty() && !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Writes a value to stdout as indented JSON.
pub fn say_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    say(&serde_json::to_string_pretty(value)?)
}

/// Writes a remark to stderr. That stderr is closed is no reason to fail.
pub fn say_error(text: &str) {
    let _ = writeln!(io::stderr().lock(), "percalectl: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        let error = anyhow::anyhow!("no route").context("look up route: no route").context("checking");
        assert_eq!(chain(&error), "checking: look up route: no route");
    }
}
