//! `ipam release`.

use super::{read, scope_name, scopes};
use crate::cli::{Output, ReleaseArgs};
use crate::host::Host;
use crate::outcome::{Outcome, say, say_json, usage};
use crate::session::{Places, Session};
use anyhow::{Result, bail};
use datastore::embedded::Mode;
use ipam::{Release, ReleaseIp};
use model::Scope;
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

/// Frees addresses and prints them. Freeing nothing is a failure: the user meant something.
pub fn release(places: &Places, args: &ReleaseArgs) -> Result<Outcome> {
    let session = places.open(Mode::Existing)?;
    let host = Host::look(places)?;
    let scopes = scopes(&session, &args.scope)?;
    let mut freed = Vec::new();
    if let Some(handle) = &args.handle {
        for scope in &scopes {
            let addresses = by_handle(&session, &host, scope, handle)?;
            freed.extend(addresses.into_iter().map(|ip| (scope.clone(), ip)));
        }
    }
    for ip in &args.ip {
        if let Some(scope) = holder(&session, &host, &scopes, *ip)? {
            freed.extend(by_ip(&session, &host, &scope, *ip)?.into_iter().map(|ip| (scope.clone(), ip)));
        }
    }
    if freed.is_empty() {
        let asked: Vec<String> = args.ip.iter().map(IpAddr::to_string).chain(args.handle.clone()).collect();
        bail!("nothing was freed: {} holds no address here", asked.join(", "));
    }
    print(args.output.output, &freed)?;
    Ok(Outcome::Done)
}

fn print(output: Output, freed: &[(Scope, IpAddr)]) -> Result<()> {
    match output {
        Output::Json => {
            let items: Vec<_> =
                freed.iter().map(|(scope, ip)| json!({"ip": ip, "scope": scope_name(scope)})).collect();
            say_json(&json!({"freed": items}))
        }
        Output::Table => {
            let lines: Vec<String> =
                freed.iter().map(|(scope, ip)| format!("freed {ip} ({})", scope_name(scope))).collect();
            say(&lines.join("\n"))
        }
    }
}

fn by_handle(session: &Session, host: &Host, scope: &Scope, handle: &str) -> Result<Vec<IpAddr>> {
    let cx = host.context(scope);
    let request = Release { handle: handle.to_owned(), ..Release::default() };
    Ok(session.commit(|view| ipam::plan_release(view, &cx, &request))?.freed)
}

fn by_ip(session: &Session, host: &Host, scope: &Scope, ip: IpAddr) -> Result<Vec<IpAddr>> {
    let cx = host.context(scope);
    let request = [ReleaseIp::new(ip)];
    Ok(session.commit(|view| ipam::plan_release_ip(view, &cx, &request, Duration::ZERO))?.freed)
}

/// Where the address is in use. Equal subnets of two networks may have given it twice, rightly.
fn holder(session: &Session, host: &Host, scopes: &[Scope], ip: IpAddr) -> Result<Option<Scope>> {
    let mut found = Vec::new();
    for scope in scopes {
        let holdings = read(session, |view| ipam::holdings(view, &host.context(scope)))?;
        found.extend(holdings.held.iter().any(|held| held.ip == ip).then(|| scope.clone()));
    }
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(scope_name).collect();
        bail!(usage(format!(
            "{ip} is in use in {}: say which with --network, or use --handle",
            names.join(" and ")
        )));
    }
    Ok(found.pop())
}
