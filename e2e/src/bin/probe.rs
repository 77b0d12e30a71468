//! Sends a line over TCP and UDP from one network namespace to another, and says how long it took.
//!
//! Usage: `probe FROM TO ADDRESS MTU`, where FROM and TO are paths of namespaces. The datagram
//! fills the MTU and may not be fragmented. Exit status 0 when both got through both ways.

use e2e::netns::Netns;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, address, mtu] = args.as_slice() else {
        eprintln!("usage: probe FROM_NETNS TO_NETNS ADDRESS MTU");
        return ExitCode::from(64);
    };
    match run(from, to, address, mtu) {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("probe: {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(from: &str, to: &str, address: &str, mtu: &str) -> Result<String, Box<dyn std::error::Error>> {
    let (from, to) = (Netns::existing(from), Netns::existing(to));
    let (ip, mtu): (std::net::IpAddr, usize) = (address.parse()?, mtu.parse()?);
    let begun = Instant::now();
    let seen = e2e::probe::tcp(&from, &to, ip)?;
    let tcp = begun.elapsed();
    let begun = Instant::now();
    e2e::probe::udp(&from, &to, ip, mtu - e2e::probe::udp_overhead(ip))?;
    Ok(format!("from {seen}: TCP {tcp:.1?}, UDP of {mtu} bytes {:.1?}", begun.elapsed()))
}
