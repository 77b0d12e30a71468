//! An etcd in the hub, spoken to through its JSON gateway.

use super::speakers::Process;
use crate::netns::Netns;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub const ENDPOINT: &str = "http://10.99.0.254:2379";
const ADDRESS: &str = "10.99.0.254:2379";

pub fn start(hub: &Netns, dir: &Path) -> Process {
    let mut command: Command = hub.command("etcd");
    command.arg("--data-dir").arg(dir.join("etcd")).arg("--unsafe-no-fsync");
    command.args(["--listen-client-urls", ENDPOINT, "--advertise-client-urls", ENDPOINT]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--logger", "zap"]);
    let mut process = Process::start(&mut command, &dir.join("etcd.log"));
    super::eventually("etcd answers", Duration::from_secs(30), || {
        process.must_run();
        try_call(hub, "range", &json!({"key": "AA=="})).map(drop)
    });
    process
}

/// A call of the gateway (`/v3/kv/NAME`); values of `fields` are encoded.
pub fn call(hub: &Netns, name: &str, fields: &[(&str, &str)]) -> Value {
    let body: serde_json::Map<String, Value> =
        fields.iter().map(|(k, v)| ((*k).to_owned(), base64(v.as_bytes()).into())).collect();
    try_call(hub, name, &Value::Object(body)).unwrap_or_else(|e| panic!("etcd {name}: {e}"))
}

pub fn get(hub: &Netns, key: &str) -> Value {
    let answer = call(hub, "range", &[("key", key)]);
    let text = answer["kvs"][0]["value"].as_str().unwrap_or_default();
    serde_json::from_slice(&unbase64(text)).unwrap_or_default()
}

fn try_call(hub: &Netns, name: &str, body: &Value) -> Result<Value, String> {
    let body = body.to_string();
    let request =
        format!("POST /v3/kv/{name} HTTP/1.0\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = hub.run(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect(ADDRESS)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    let answer = answer.map_err(|e| e.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    match head.contains(" 200 ") {
        true => serde_json::from_str(body).map_err(|e| format!("{e}: {body}")),
        false => Err(answer),
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

fn unbase64(text: &str) -> Vec<u8> {
    let digits = text.bytes().filter_map(|b| ALPHABET.iter().position(|a| *a == b));
    let (mut out, mut word, mut bits) = (Vec::new(), 0u32, 0);
    for digit in digits {
        word = word << 6 | digit as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_there_and_back() {
        assert_eq!(base64(b"\0"), "AA==");
        for text in ["", "a", "ab", "abc", "{\"key\": [1, 2, 3]}"] {
            assert_eq!(unbase64(&base64(text.as_bytes())), text.as_bytes());
        }
    }
}
