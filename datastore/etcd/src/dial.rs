//! From an endpoint's address to a TCP connection.

use datastore_resolve as resolve;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A connection to the first address of `host` that takes one, all within `limit`.
pub(crate) async fn tcp(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let addresses = resolve::addresses(host, port).await?;
    let each = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in addresses {
        match timeout(each, connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => last = named(address, &e),
            Err(_) => last = named(address, &io::Error::from(io::ErrorKind::TimedOut)),
        }
    }
    Err(last)
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Small requests and answers by turns: waiting to fill packets would cost 40 ms each.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn named(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
}
