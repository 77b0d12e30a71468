//! Names of hosts without the C library, whose resolver a static binary does not have: literal
//! addresses, then the hosts file, then the servers of resolv.conf.

use resolv_conf::ScopedIp;
use rsdns::clients::ClientConfig;
use rsdns::clients::tokio::Client;
use rsdns::records::Class;
use rsdns::records::data::{A, Aaaa};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Longest wait for one question to one server, all repetitions included.
const QUESTION: Duration = Duration::from_secs(1);
const DNS_PORT: u16 = 53;

/// The addresses of `host`, IPv4 first. `host` may be a literal, IPv6 in brackets too.
///
/// # Errors
/// `NotFound` when there is none; else why nobody could be asked.
pub async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let bare = bare(host);
    let found = match bare.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => by_name(bare).await?,
    };
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// A host as it is written in a URL, less the brackets of an IPv6 address.
pub fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

async fn by_name(host: &str) -> io::Result<Vec<IpAddr>> {
    let hosts = std::fs::read_to_string(HOSTS).unwrap_or_default();
    let mut found = in_hosts(&hosts, host);
    if found.is_empty() && host.eq_ignore_ascii_case("localhost") {
        found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    if found.is_empty() {
        let bytes = std::fs::read(RESOLV_CONF).unwrap_or_default();
        let (conf, _) = resolv_conf::Config::parse_with_errors(&bytes);
        return by_dns(host, &conf).await;
    }
    found.sort_by_key(IpAddr::is_ipv6);
    Ok(found)
}

/// hosts(5): an address, then names; names are compared without regard to case.
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let wanted = host.trim_end_matches('.');
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let ip: IpAddr = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(wanted)).then_some(ip)
    };
    text.lines().filter_map(line).collect()
}

async fn by_dns(host: &str, conf: &resolv_conf::Config) -> io::Result<Vec<IpAddr>> {
    let mut why = io::Error::new(io::ErrorKind::NotFound, format!("{host}: no such host"));
    for name in candidates(host, conf) {
        for server in servers(conf) {
            match ask(server, &name).await {
                Ok(found) if found.is_empty() => break,
                Ok(found) => return Ok(found),
                Err(e) => why = io::Error::other(format!("{host}: name server {server}: {e}")),
            }
        }
    }
    Err(why)
}

/// resolv.conf(5): a name with fewer dots than `ndots` is tried in the search domains first.
fn candidates(host: &str, conf: &resolv_conf::Config) -> Vec<String> {
    if host.ends_with('.') {
        return vec![host.to_owned()];
    }
    let searched = conf.get_last_search_or_domain().map(|domain| format!("{host}.{domain}"));
    let mut names: Vec<String> = searched.collect();
    let dots = u32::try_from(host.matches('.').count()).unwrap_or(u32::MAX);
    let place = if dots >= conf.ndots { 0 } else { names.len() };
    names.insert(place, host.to_owned());
    names
}

fn servers(conf: &resolv_conf::Config) -> Vec<SocketAddr> {
    let mut servers: Vec<IpAddr> = conf.nameservers.iter().map(address).collect();
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    servers.into_iter().map(|ip| SocketAddr::new(ip, DNS_PORT)).collect()
}

fn address(server: &ScopedIp) -> IpAddr {
    server.clone().into()
}

/// Both families of one name; empty when the server says that there is none.
async fn ask(server: SocketAddr, name: &str) -> Result<Vec<IpAddr>, rsdns::Error> {
    let config = ClientConfig::with_nameserver(server).set_query_lifetime(QUESTION);
    let mut client = Client::new(config).await?;
    let v4 = none_or(client.query_rrset::<A>(name, Class::IN).await.map(|set| set.rdata))?;
    let v6 = none_or(client.query_rrset::<Aaaa>(name, Class::IN).await.map(|set| set.rdata))?;
    let v4 = v4.into_iter().map(|a| IpAddr::from(a.address));
    Ok(v4.chain(v6.into_iter().map(|a| IpAddr::from(a.address))).collect())
}

fn none_or<T>(answer: Result<Vec<T>, rsdns::Error>) -> Result<Vec<T>, rsdns::Error> {
    use rsdns::message::RCode;
    match answer {
        Err(rsdns::Error::NoAnswer) => Ok(Vec::new()),
        Err(rsdns::Error::BadResponseCode(code)) if code == RCode::NXDOMAIN => Ok(Vec::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_is_read_as_the_c_library_does() {
        let text = "127.0.0.1 localhost\n# 10.0.0.9 etcd-1\n10.0.0.1\tetcd-1 ETCD-1.example # 10.0.0.3\nfd00::1 etcd-1\nnonsense etcd-1\n";
        let two: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(in_hosts(text, "etcd-1"), two);
        assert_eq!(in_hosts(text, "Etcd-1.EXAMPLE."), two[..1]);
        assert!(in_hosts(text, "etcd").is_empty());
    }

    #[test]
    fn search_domains_follow_the_number_of_dots() {
        let conf = resolv_conf::Config::parse("search a.example b.example\nnameserver 10.0.0.53\n").unwrap();
        assert_eq!(candidates("etcd", &conf), ["etcd.a.example", "etcd.b.example", "etcd"]);
        assert_eq!(candidates("etcd.c", &conf)[0], "etcd.c");
        assert_eq!(candidates("etcd.", &conf), ["etcd."]);
        assert_eq!(servers(&conf), ["10.0.0.53:53".parse().unwrap()]);
        assert_eq!(servers(&resolv_conf::Config::new()), ["127.0.0.1:53".parse().unwrap()]);
    }
}
