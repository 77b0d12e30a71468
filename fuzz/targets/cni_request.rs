//! A whole request: seven lines of environment, then stdin. Whatever comes in is parsed or
//! refused, never a panic; what is accepted is what the engine may rely on.
#![no_main]

use cni_protocol::{Defaults, Env, Request, Verb, Version};
use libfuzzer_sys::fuzz_target;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

const VARIABLES: [&str; 7] = [
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
    "CNI_NETNS_OVERRIDE",
];

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(VARIABLES.len() + 1, |byte| *byte == b'\n');
    let values: Vec<&[u8]> = lines.by_ref().take(VARIABLES.len()).collect();
    let stdin = lines.next().unwrap_or_default();
    let get = |name: &str| -> Option<OsString> {
        let at = VARIABLES.iter().position(|known| *known == name)?;
        values.get(at).map(|value| std::ffi::OsStr::from_bytes(value).to_owned())
    };
    match Env::from_fn(get).and_then(|env| Request::parse(env, stdin, Defaults::percale())) {
        Ok(request) => check(&request),
        Err(error) => {
            assert!(!error.msg.is_empty() && !error.msg.contains(char::is_control));
            assert!(error.to_json(Version::of_input(stdin)).is_object());
        }
    }
});

fn check(request: &Request) {
    let has_container = matches!(request.verb, Verb::Add | Verb::Del | Verb::Check);
    assert_eq!(request.attachment.is_some(), has_container);
    assert!(request.netns.is_some() || !matches!(request.verb, Verb::Add | Verb::Check));
    if let Some(attachment) = &request.attachment {
        let name = attachment.file_name();
        assert!(name.len() <= 160 && !name.contains(['/', '\0']) && !name.starts_with('.'));
        assert!((1..=15).contains(&attachment.ifname.len()));
    }
    let _addresses = request.requested_ips();
    let _text = format!("{request:?}");
}
