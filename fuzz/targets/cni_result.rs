//! What another plugin printed: a result or an error of any version. What was read survives being
//! written in the newest version, and can be written in each.
#![no_main]

use cni_protocol::{CniError, CniResult, Version};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    if let Some(error) = CniError::from_json(&value) {
        assert!(!error.msg.contains(char::is_control));
    }
    let Ok(result) = CniResult::from_json(&value) else { return };
    for version in Version::ALL {
        let json = result.to_json(version);
        let again = CniResult::from_json(&json).expect("our own writing is understood");
        if version == Version::NEWEST {
            assert_eq!(again, result);
        }
        assert_eq!(again.to_json(version), json);
    }
});
