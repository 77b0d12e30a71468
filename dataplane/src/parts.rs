//! The parts of the daemon, each on a thread of its own.

use crate::context::Context;
use crate::stage::Stage;
use anyhow::{Result, anyhow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

/// The condition that holds once those of all parts are known: a daemon that has just started is not ready.
pub(crate) const START: &str = "start";

/// A part: its name and what it does until the shutdown is set.
pub(crate) struct Part {
    pub name: &'static str,
    /// In which stages of a take-over it works.
    pub when: fn(Stage) -> bool,
    /// What readiness waits for, from before the first part runs.
    pub condition: Option<&'static str>,
    pub run: fn(&Arc<Context>) -> Result<()>,
}

/// Runs all parts until the shutdown is set or one fails, then waits for the others.
///
/// # Errors
/// The first failure, by the part's name; a part that ends unasked has failed.
pub(crate) fn run(parts: &'static [Part], context: &Arc<Context>) -> Result<()> {
    let (sender, ended) = mpsc::channel();
    let mut outcome = Ok(());
    let mut threads = Vec::new();
    let parts = || parts.iter().filter(|part| (part.when)(context.stage));
    parts().filter_map(|part| part.condition).for_each(|name| drop(context.health.condition(name)));
    context.health.condition(START).ready();
    for part in parts() {
        match spawn(part, context, sender.clone()) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                outcome = Err(error);
                context.shutdown.set();
                break;
            }
        }
    }
    drop(sender);
    for (part, result) in ended.iter() {
        let result = result.and_then(|()| match context.shutdown.is_set() {
            true => Ok(()),
            false => Err(anyhow!("it ended unasked")),
        });
        if let Err(error) = result {
            tracing::error!(part, "failed: {error:#}");
            outcome = outcome.and(Err(error.context(part)));
            context.shutdown.set();
        }
    }
    threads.into_iter().for_each(|thread| drop(thread.join()));
    outcome
}

type Ended = mpsc::Sender<(&'static str, Result<()>)>;

fn spawn(part: &'static Part, context: &Arc<Context>, ended: Ended) -> Result<std::thread::JoinHandle<()>> {
    let context = context.clone();
    let body = move || {
        let caught = catch_unwind(AssertUnwindSafe(|| (part.run)(&context)));
        let result = caught.unwrap_or_else(|_| Err(anyhow!("it panicked; this is a bug")));
        let _ = ended.send((part.name, result));
    };
    Ok(std::thread::Builder::new().name(part.name.into()).spawn(body)?)
}
