//! Servers that are gone, silent, busy or closed to us.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use datastore::{ErrorKind, Store};
use datastore_kubernetes::{Config, Kubernetes};
use model::store::Expect;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::proxy::Proxy;
use support::{Bed, commit, commit_error, get, put, soon, within};

const VALUE: &str = r#"{"block":{"10.0.0.0/26":1},"deleted":false}"#;

fn handle(name: &str) -> String {
    format!("/calico/ipam/v2/handle/net.{name}")
}

fn open_error(config: &Config) -> datastore::Error {
    Kubernetes::open(config, soon()).err().expect("must fail")
}

// REQ: K-04
#[test]
fn a_dead_server_is_known_in_seconds() {
    let bed = Bed::shared();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let began = Instant::now();
    let error = open_error(&Config { endpoint: format!("https://127.0.0.1:{port}"), ..bed.config() });
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

// REQ: K-04
#[test]
fn a_silent_server_is_known_in_seconds_and_taken_again_when_it_speaks() {
    let bed = Bed::up();
    let store = bed.open();
    let server = Pid::from_raw(bed.server_pid()).unwrap();
    kill_process(server, Signal::STOP).unwrap();
    while !is_stopped(server) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let began = Instant::now();
    let error = store.get(&[&handle("silent")], within(Duration::from_secs(2))).unwrap_err();
    assert!(error.kind == ErrorKind::Timeout && began.elapsed() < Duration::from_secs(3), "{error}");
    let error = store.get(&[&handle("silent")], soon()).unwrap_err();
    assert!(error.kind == ErrorKind::Timeout && began.elapsed() < Duration::from_secs(15), "{error}");
    kill_process(server, Signal::CONT).unwrap();
    commit(&store, &[put(&handle("silent"), Expect::Absent, VALUE)]);
}

/// Whether none of its threads runs on: the state after the name in parentheses, `proc_pid_stat(5)`.
fn is_stopped(server: Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.as_raw_nonzero())).unwrap();
    let stat = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default()
    };
    tasks
        .map(stat)
        .all(|stat| stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
}

#[test]
fn cut_connections_are_replaced_and_lost_answers_understood() {
    let bed = Bed::shared();
    let proxy = Proxy::to(bed.port());
    let store = support::open(&Config { endpoint: proxy.url("https"), ..bed.config() });
    for n in 0..5 {
        proxy.cut();
        commit(&store, &[put(&handle(&format!("cut-{n}")), Expect::Absent, VALUE)]);
    }
    // The server does what it is asked, and nobody hears of it: no conflict with ourselves.
    let key = handle("deaf");
    let mut revision = 0;
    for (n, expect) in [Expect::Absent, Expect::At(0), Expect::At(0)].into_iter().enumerate() {
        let expect = if n == 0 { expect } else { Expect::At(revision) };
        proxy.deafen(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_secs(2));
                proxy.deafen(false);
            });
            let value = (n < 2).then(|| VALUE.replace(":1}", &format!(":{}}}", n + 1)).into_bytes());
            revision = commit(&store, &[model::store::Write { key: key.clone(), expect, value }]);
        });
    }
    assert_eq!(get(&store, &key), None);
}

/// Answers in plain HTTP what the script says, one answer for each request, then the namespace.
fn scripted(script: Vec<&'static str>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    std::thread::spawn(move || {
        let mut script = script.into_iter();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            reader.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
            seen.lock().unwrap().push(head);
            let body = r#"{"metadata":{"uid":"u-1","name":"kube-system","resourceVersion":"5"}}"#;
            let head = script.next().unwrap_or("200 OK\r\n");
            let _ = write!(
                stream,
                "HTTP/1.1 {head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (url, requests)
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let (endpoint, requests) = scripted(vec![
        "429 Too Many Requests\r\nRetry-After: 1\r\n",
        "503 Service Unavailable\r\n",
        "500 Internal Server Error\r\n",
        "504 Gateway Timeout\r\n",
    ]);
    let began = Instant::now();
    let config = Config { endpoint, token: "secret".into(), ..Config::default() };
    let store = support::open(&config);
    assert_eq!(store.identity(), "kubernetes:u-1");
    assert!(began.elapsed() >= Duration::from_secs(1) && store.calls().gets == 5, "{:?}", store.calls());
    let requests = requests.lock().unwrap();
    assert!(
        requests.iter().all(|r| r.to_lowercase().contains("authorization: bearer secret")),
        "{requests:?}"
    );
    assert!(!format!("{config:?}").contains("secret"));
}

#[test]
fn a_server_that_stays_busy_ends_with_the_deadline_and_its_reason() {
    let (endpoint, _) = scripted(vec!["503 Service Unavailable\r\n"; 100]);
    let config = Config { endpoint, ..Config::default() };
    let error = Kubernetes::open(&config, within(Duration::from_secs(1))).err().unwrap();
    assert!(error.kind == ErrorKind::Timeout && error.detail.contains("503"), "{error}");
}

/// Answers each connection by itself: `/livez` as `life` says, the first GET of an object in `ipamhandles` never, and
/// lists after 7 seconds of silence before the head and again within the body.
fn slow(life: &'static str) -> Config {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let unheard = Arc::new(Mutex::new(true));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, unheard) = (stream.unwrap(), unheard.clone());
            std::thread::spawn(move || answer_slowly(stream, life, &unheard));
        }
    });
    Config { endpoint, ..Config::default() }
}

fn answer_slowly(mut stream: std::net::TcpStream, life: &str, unheard: &Mutex<bool>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
    let path = head.split(' ').nth(1).unwrap_or_default();
    let pause = Duration::from_secs(if path.contains('?') { 7 } else { 0 });
    if path.contains("/ipamhandles/") && std::mem::take(&mut *unheard.lock().unwrap()) {
        std::thread::sleep(Duration::from_secs(100));
    }
    let (status, body) = match path {
        "/livez" => (life, "{}"),
        _ if path.contains("/ipamhandles/") => ("404 Not Found", r#"{"details":{"name":"a"}}"#),
        _ => {
            ("200 OK", r#"{"metadata":{"uid":"u-1","name":"kube-system","resourceVersion":"5"},"items":[]}"#)
        }
    };
    let (begun, rest) = body.split_at(1);
    let length = body.len();
    std::thread::sleep(pause);
    let _ =
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{begun}");
    std::thread::sleep(pause);
    let _ = write!(stream, "{rest}");
}

// REQ: K-04
#[test]
fn a_slow_list_is_waited_for_while_the_server_lives() {
    let store = support::open(&slow("200 OK"));
    let began = Instant::now();
    let entries = store.list("/calico/ipam/v2/handle/", soon()).unwrap();
    assert!(entries.is_empty() && began.elapsed() >= Duration::from_secs(14), "{:?}", began.elapsed());
    assert!(store.calls().lists == 1 && store.calls().repeated == 0, "{:?}", store.calls());
}

#[test]
fn a_lost_answer_of_a_server_that_lives_is_asked_for_again() {
    let store = support::open(&slow("200 OK"));
    let began = Instant::now();
    assert_eq!(get(&store, &handle("unheard")), None);
    assert!(began.elapsed() < Duration::from_secs(15) && store.calls().repeated == 1, "{:?}", store.calls());
}

// REQ: K-04
#[test]
fn a_slow_list_of_a_server_that_says_it_is_ill_is_an_error_in_seconds() {
    let store = support::open(&slow("500 Internal Server Error"));
    let began = Instant::now();
    let error = store.list("/calico/ipam/v2/handle/", soon()).unwrap_err();
    assert!(error.kind == ErrorKind::Timeout && began.elapsed() < Duration::from_secs(7), "{error}");
}

fn account(bed: &Bed, token: &str) -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("percale-account-").tempdir().unwrap();
    std::fs::copy(bed.dir.join("pki/ca.crt"), dir.path().join("ca.crt")).unwrap();
    std::fs::write(dir.path().join("token"), token).unwrap();
    dir
}

#[test]
fn the_pod_s_account_and_its_token_are_read_again() {
    let bed = Bed::shared();
    let token = std::fs::read_to_string(bed.dir.join("percale-cni.token")).unwrap();
    let dir = account(&bed, &format!("{token}\n"));
    let config = Config {
        in_cluster: Some(("127.0.0.1".into(), bed.port().to_string())),
        account: Some(dir.path().into()),
        ..Config::default()
    };
    let store = support::open(&config);
    let file = dir.path().join("token");
    std::fs::write(&file, "forged").unwrap();
    let error = store.get(&[&handle("token")], soon()).unwrap_err();
    assert!(error.kind == ErrorKind::Denied && error.detail.contains("expired"), "{error}");
    // A file that is gone for a moment changes nothing for who has a token.
    std::fs::write(&file, &token).unwrap();
    assert_eq!(get(&store, &handle("token")), None);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(get(&store, &handle("token")), None);
    let error = open_error(&config);
    assert!(error.kind == ErrorKind::Denied && error.detail.contains("token"), "{error}");
}

#[test]
fn a_token_in_a_kubeconfig_is_read_again_too() {
    let bed = Bed::shared();
    let good = std::fs::read_to_string(Path::new(&bed.plugin_config().kubeconfig)).unwrap();
    let dir = tempfile::Builder::new().prefix("percale-kubeconfig-").tempdir().unwrap();
    let file = dir.path().join("config");
    let (head, rest) = good.split_once("token: \"").unwrap();
    let (_, tail) = rest.split_once('"').unwrap();
    std::fs::write(&file, &good).unwrap();
    let store = support::open(&Config { kubeconfig: file.clone().into(), ..Config::default() });
    std::fs::write(&file, format!("{head}token: \"expired\"{tail}")).unwrap();
    let error = store.list("/calico/ipam/v2/handle/net.token", soon()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    std::fs::write(&file, &good).unwrap();
    assert_eq!(get(&store, &handle("token")), None);
}

#[test]
fn what_the_account_may_not_is_denied() {
    let bed = Bed::shared();
    let store = support::open(&bed.plugin_config());
    let pool = r#"{"spec":{"cidr":"10.9.0.0/16"}}"#;
    let key = "/calico/resources/v3/projectcalico.org/ippools/denied";
    let error = commit_error(&store, &[put(key, Expect::Absent, pool)]);
    assert!(error.kind == ErrorKind::Denied && error.detail.contains("ippools"), "{error}");
    let bad =
        commit_error(&bed.open(), &[put("/calico/ipam/v2/handle/net.bad", Expect::Absent, r#"{"block":7}"#)]);
    assert!(bad.kind == ErrorKind::Invalid && bad.detail.contains("spec.block"), "{bad}");
}

#[test]
fn kubeconfig_files_are_merged() {
    let bed = Bed::shared();
    let dir = tempfile::Builder::new().prefix("percale-merge-").tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name)
    };
    let good = std::fs::read_to_string(bed.admin_kubeconfig()).unwrap();
    // The first file to name something decides; relative paths are the file's.
    std::fs::copy(bed.dir.join("pki/ca.crt"), dir.path().join("ca.crt")).unwrap();
    let first = file(
        "first",
        &format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: nowhere\ncontexts:\n- name: nowhere\n  context: {{cluster: none, user: admin}}\n- name: mine\n  context: {{cluster: mine, user: admin}}\nclusters:\n- name: none\n  cluster: {{server: \"https://127.0.0.1:1\"}}\n- name: mine\n  cluster: {{server: \"https://127.0.0.1:{}\", certificate-authority: ca.crt}}\n",
            bed.port()
        ),
    );
    let second = file("second", &good);
    let missing = dir.path().join("missing");
    let list = |files: &[&Path]| std::env::join_paths(files).unwrap();
    let env = |context: &'static str, files: OsString| {
        move |name: &str| match name {
            "KUBECONFIG" => Some(files.clone()),
            "K8S_CURRENT_CONTEXT" => Some(context.into()),
            _ => None,
        }
    };
    let of = |context: &'static str, files: &[&Path]| Config::default().with_env(&env(context, list(files)));
    support::open(&of("mine", &[&missing, &first, &second]));
    support::open(&of("testbed", &[&first, &second]));
    support::open(&of("", &[&second, &first]));
    assert_eq!(open_error(&of("", &[&first, &second])).kind, ErrorKind::Unreachable);
    assert_eq!(open_error(&of("other", &[&second])).kind, ErrorKind::Invalid);
    let error = open_error(&of("", &[&missing]));
    // As any credential that cannot be read: it may be there in a moment.
    assert!(error.kind == ErrorKind::Denied && error.detail.contains("missing"), "{error}");
    assert_eq!(open_error(&Config::default()).kind, ErrorKind::Invalid);
    // What would reach another server, or act as another user, is not passed over.
    for (member, text) in [
        ("proxy-url", good.replace("server:", "proxy-url: \"http://a\", server:")),
        ("as", good.replace("client-certificate:", "as: somebody, client-certificate:")),
    ] {
        let error = open_error(&of("", &[&file(member, &text)]));
        assert!(error.kind == ErrorKind::Invalid && error.detail.contains(member), "{error}");
    }
}

#[test]
fn calico_s_variables_decide() {
    let env = |name: &str| match name {
        "CALICO_KUBECONFIG" => Some("/calico".into()),
        "KUBECONFIG" => Some("/plain".into()),
        "K8S_API_ENDPOINT" => Some("https://10.0.0.1:6443".into()),
        "K8S_INSECURE_SKIP_TLS_VERIFY" => Some("true".into()),
        "KUBERNETES_SERVICE_HOST" => Some("fd00::1".into()),
        "KUBERNETES_SERVICE_PORT" => Some("443".into()),
        _ => None,
    };
    let config = Config { kubeconfig: "/config".into(), endpoint: "https://a".into(), ..Config::default() }
        .with_env(&env);
    assert_eq!((config.kubeconfig.to_str(), config.endpoint.as_str()), (Some("/calico"), "https://a"));
    assert!(config.insecure && config.is_given());
    assert_eq!(config.in_cluster, Some(("fd00::1".into(), "443".into())));
    assert!(!Config::default().with_env(&|name| (name == "HOME").then(|| "/root".into())).is_given());
    for endpoint in ["ftp://a", "nonsense", "https://"] {
        assert_eq!(
            open_error(&Config { endpoint: endpoint.into(), ..Config::default() }).kind,
            ErrorKind::Invalid
        );
    }
}
