//! `percalectl`: looks at, checks and repairs what Percale keeps on a host.
//!
//! | module | what |
//! |---|---|
//! | [`backend`] | which store, and how it is reached |
//! | [`cli`] | options, commands, help |
//! | [`session`] | where things are; the store with its lock |
//! | [`kinds`] | the kinds of resource: members, rules, stored forms |
//! | [`documents`] | YAML and JSON files |
//! | [`resources`] | get, create, apply, replace, patch, delete |
//! | [`ipam`] | show, check, release, configure |
//! | [`host`] | what this host knows about its attachments |
//! | [`storage`] | store dump and load |
//! | [`bgp`] | the daemon's BGP speaker |
//! | [`doctor`] | is this host fit |
//! | [`outcome`], [`table`] | exit status, output |
//!
//! Exit status: 0 done, 1 failed, 2 found something wrong, 64 bad usage.

mod backend;
mod bgp;
mod cli;
mod daemon;
mod doctor;
mod documents;
mod host;
mod ipam;
mod kinds;
mod outcome;
mod resources;
mod session;
mod storage;
mod table;
mod version;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command, IpamCommand, StoreCommand};
use outcome::Outcome;
use session::Places;
use std::process::ExitCode;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Err(error) => outcome::report_clap(&error),
        Ok(cli) => match run(&cli) {
            Ok(outcome) => outcome.into(),
            Err(error) => outcome::report(&error),
        },
    }
}

fn run(cli: &Cli) -> anyhow::Result<Outcome> {
    match &cli.command {
        Command::Version(args) => return version::version(args.output),
        Command::Completion { shell } => return completion(*shell),
        Command::Bgp(command) => return bgp::bgp(command),
        Command::Node(command) => return bgp::node(command),
        _ => {}
    }
    let places = Places::resolve(&cli.options, &|name| std::env::var_os(name))?;
    match &cli.command {
        Command::Ipam(IpamCommand::Show(args)) => ipam::show(&places, args),
        Command::Ipam(IpamCommand::Check(args)) => ipam::check(&places, args),
        Command::Ipam(IpamCommand::Release(args)) => ipam::release(&places, args),
        Command::Ipam(IpamCommand::Configure(args)) => ipam::configure(&places, args),
        Command::Store(StoreCommand::Dump) => storage::dump(&places),
        Command::Store(StoreCommand::Load(args)) => storage::load(&places, args),
        Command::Get(args) => resources::get(&places, args),
        Command::Create(args) => resources::create(&places, args),
        Command::Apply(args) => resources::apply(&places, args),
        Command::Replace(args) => resources::replace(&places, args),
        Command::Patch(args) => resources::patch(&places, args),
        Command::Delete(args) => resources::delete(&places, args),
        Command::Doctor(args) => doctor::doctor(&places, args),
        Command::Version(_) | Command::Completion { .. } | Command::Bgp(_) | Command::Node(_) => {
            Ok(Outcome::Done)
        }
    }
}

fn completion(shell: clap_complete::Shell) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "percalectl", &mut script);
    outcome::say(&String::from_utf8(script)?)?;
    Ok(Outcome::Done)
}
