//! `ipam`: what is allocated, what is wrong with it, and what cures that.

mod check;
mod configure;
mod journal;
mod release;
mod repair;
mod report;
mod show;
mod stray;

pub use check::{Findings, check, examine};
pub use configure::configure;
pub use journal::pending;
pub use release::release;
pub use show::show;

use crate::cli::ScopeArgs;
use crate::session::Session;
use anyhow::Result;
use ipam::Held;
use model::Scope;
use model::store::{Plan, Stop, View};

/// Every scope in the store, or the one that was asked for.
fn scopes(session: &Session, args: &ScopeArgs) -> Result<Vec<Scope>> {
    match &args.network {
        Some(name) => Ok(vec![Scope::Network(name.clone())]),
        None => read(session, ipam::scopes),
    }
}

/// Runs a reading plan.
fn read<T>(session: &Session, plan: impl Fn(&View) -> Result<T, Stop<ipam::IpamError>>) -> Result<T> {
    session.drive(|view| plan(view).map(Plan::Done))
}

/// `cluster`, or the network's name.
fn scope_name(scope: &Scope) -> String {
    match scope {
        Scope::Cluster => "cluster".to_owned(),
        Scope::Network(name) => format!("network {name}"),
    }
}

/// The node that an allocation is for: an attribute that Calico writes too.
fn node_of(held: &Held) -> Option<String> {
    held.attrs.get("node").cloned()
}
