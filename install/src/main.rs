//! `percale-install`: see the library.

use clap::Parser as _;
use install::options::{Mode, Options};
use install::run;
use install::settings::Settings;
use install::watch::{self, Tokens};
use std::process::ExitCode;

const USAGE: u8 = 64;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Nothing can be done where even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let settings = match Settings::resolve(&options, &|name| std::env::var_os(name)) {
        Ok(settings) => settings,
        Err(error) => return told(&error, USAGE),
    };
    if options.watch && !matches!(settings.mode, Mode::Install | Mode::TakeOver(_)) {
        return told(&anyhow::anyhow!("--watch: keeps an installation; it goes with no other mode"), USAGE);
    }
    match work(&options, &settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => told(&error, 1),
    }
}

fn told(error: &anyhow::Error, status: u8) -> ExitCode {
    eprintln!("percale-install: {error:#}");
    ExitCode::from(status)
}

fn work(options: &Options, settings: &Settings) -> anyhow::Result<()> {
    let mut tokens = Tokens::new(settings);
    if options.dry_run {
        let token = tokens.current()?;
        print!("{}", run::dry(settings, options, token.as_deref())?);
        return Ok(());
    }
    for warning in run::warnings(settings) {
        eprintln!("percale-install: warning: {warning}");
    }
    let installs = matches!(settings.mode, Mode::Install | Mode::TakeOver(_));
    let token = if installs { tokens.current()? } else { None };
    let changed = run::once(settings, token.as_deref())?;
    eprintln!("percale-install: {}", if changed { "done" } else { "nothing to do" });
    if settings.stay && installs { watch::stay(settings, &mut tokens) } else { Ok(()) }
}
