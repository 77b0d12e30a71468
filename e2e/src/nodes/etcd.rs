//! An etcd that all nodes reach.

use super::{signal_child, wait};
use crate::netns::{Netns, must};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Where it listens.
pub const URL: &str = "http://10.88.1.254:2379";

pub struct Etcd(Child);

impl Etcd {
    pub fn start(router: &Netns, dir: &Path) -> Self {
        let log = fs::File::create(dir.join("etcd.log")).expect("the bed is writable");
        let mut command = router.command("etcd");
        command.arg("--data-dir").arg(dir.join("etcd"));
        command.args(["--listen-client-urls", URL, "--advertise-client-urls", URL]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:0", "--log-level", "error"]);
        command.arg("--unsafe-no-fsync").stdout(Stdio::null()).stderr(log);
        let etcd = Self(command.spawn().expect("etcd is installed"));
        let health = format!("{URL}/health");
        wait("etcd", Duration::from_secs(30), || {
            let answer = router.command("curl").args(["-sf", &health]).output().expect("curl is installed");
            String::from_utf8_lossy(&answer.stdout).contains("true")
        });
        etcd
    }

    /// Stops (or continues) it where it is.
    pub fn pause(&self, pause: bool) {
        signal_child(&self.0, if pause { Signal::STOP } else { Signal::CONT });
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.pause(false);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn get(router: &Netns, key: &str) -> Option<Value> {
    let answer = call(router, "range", &json!({"key": base64(key.as_bytes())}));
    let value = answer["kvs"][0]["value"].as_str()?;
    Some(serde_json::from_slice(&unbase64(value)).expect("values are JSON"))
}

/// Every value below a prefix.
pub fn list(router: &Netns, prefix: &str) -> Vec<Value> {
    let mut end = prefix.as_bytes().to_vec();
    // The prefix's last byte is no 255: keys are text.
    end.last_mut().into_iter().for_each(|byte| *byte += 1);
    let answer = call(router, "range", &json!({"key": base64(prefix.as_bytes()), "range_end": base64(&end)}));
    let values = answer["kvs"].as_array().cloned().unwrap_or_default();
    let value = |kv: &Value| serde_json::from_slice(&unbase64(kv["value"].as_str()?)).ok();
    values.iter().filter_map(value).collect()
}

pub fn put(router: &Netns, key: &str, value: &Value) {
    let value = base64(value.to_string().as_bytes());
    call(router, "put", &json!({"key": base64(key.as_bytes()), "value": value}));
}

pub fn delete(router: &Netns, key: &str) {
    call(router, "deleterange", &json!({"key": base64(key.as_bytes())}));
}

fn call(router: &Netns, call: &str, body: &Value) -> Value {
    let mut command = router.command("curl");
    command.args(["-sSf", "-X", "POST", "-d", &body.to_string()]).arg(format!("{URL}/v3/kv/{call}"));
    serde_json::from_slice(&must(&mut command)).expect("etcd answers JSON")
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let number = part.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - part.len()));
        for at in 0..4 {
            let digit = ALPHABET[(number >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= part.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn unbase64(text: &str) -> Vec<u8> {
    let digits: Vec<u32> =
        text.bytes().filter_map(|c| ALPHABET.iter().position(|a| *a == c)).map(|d| d as u32).collect();
    let mut bytes = Vec::new();
    for part in digits.chunks(4) {
        let number = part.iter().fold(0u32, |n, d| n << 6 | d) << (6 * (4 - part.len()));
        bytes.extend(number.to_be_bytes()[1..part.len()].iter());
    }
    bytes
}
