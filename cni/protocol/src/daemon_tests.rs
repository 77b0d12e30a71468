use super::*;
use std::fs;
use std::path::PathBuf;

fn ask() -> Ask {
    let vars = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/run/netns/a")];
    Ask {
        program: "percale".into(),
        left: Duration::from_secs(60),
        store: "embedded:/var/lib/percale/store".into(),
        state_dir: Some((65024, 1234)),
        env: vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        config: r#"{"cniVersion":"1.0.0","name":"net \"x\"","type":"percale"}"#.into(),
    }
}

fn replies() -> Vec<Reply> {
    let log = LogPart {
        addresses: vec!["10.0.0.1/32".into()],
        phases: vec![("wire".into(), 1500)],
        note: "replaced".into(),
    };
    let error = CniError::try_again("try again").with_details("because");
    vec![
        Reply::Served { outcome: Ok(None), log: log.clone() },
        Reply::Served { outcome: Ok(Some(r#"{"ips":[]}"#.into())), log: log.clone() },
        Reply::Served { outcome: Err(error), log },
        Reply::refused("another store"),
    ]
}

#[test]
fn both_versions_carry_a_request() {
    assert_eq!(Ask::decode(&ask().encode(2).unwrap()).unwrap(), (ask(), 2));
    let old = Ask { state_dir: None, ..ask() };
    assert_eq!(Ask::decode(&ask().encode(1).unwrap()).unwrap(), (old, 1));
    assert!(matches!(ask().encode(3), Err(Malformed::Version(3))));
    let newer = br#"{"version":3,"anything":[]}"#;
    assert!(matches!(Ask::decode(newer), Err(Malformed::Version(3))));
}

#[test]
fn both_versions_carry_a_reply() {
    for reply in replies() {
        assert_eq!(Reply::decode(&reply.encode(2)).unwrap(), reply);
        let old = match reply.clone() {
            Reply::Served { outcome, .. } => Reply::Served { outcome, log: LogPart::default() },
            refused => refused,
        };
        assert_eq!(Reply::decode(&reply.encode(1)).unwrap(), old);
    }
}

/// What a build of version 1 sent and answered, recorded: it must be understood for as long as this
/// build claims to.
// REQ: I-07
#[test]
fn the_recorded_messages_of_the_version_before_are_understood() {
    let read = |name: &str| {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/daemon/v1");
        fs::read(dir.join(name)).unwrap()
    };
    let (asked, version) = Ask::decode(&read("ask.json")).unwrap();
    assert_eq!((asked, version), (Ask { state_dir: None, ..ask() }, 1));
    let served = |outcome| Reply::Served { outcome, log: LogPart::default() };
    assert_eq!(Reply::decode(&read("result.json")).unwrap(), served(Ok(Some(r#"{"ips":[]}"#.into()))));
    assert_eq!(Reply::decode(&read("empty.json")).unwrap(), served(Ok(None)));
    let error = CniError::try_again("try again").with_details("because");
    assert_eq!(Reply::decode(&read("error.json")).unwrap(), served(Err(error)));
    let refused =
        Reply::Refused { why: "version 2 of the protocol is not spoken here".into(), speaks: vec![0, 1] };
    assert_eq!(Reply::decode(&read("refused.json")).unwrap(), refused);
}

#[test]
fn only_variables_of_the_protocol_travel() {
    let set = |name: &str| (name != "CNI_ARGS").then(|| OsString::from("v"));
    let vars = Ask::variables(set);
    assert_eq!(vars.len(), VARIABLES.len() - 1);
    assert!(!vars.contains_key("PATH"));
}
