//! The plugin process: argv, environment and stdin in, exactly one JSON document out.

use crate::engine::{self, Engine, Role, Stores};
use crate::log::{Call, Failure, Level, Log, LogSettings};
use crate::{hand_over, watchdog};
use cni_protocol::netconf::{Defaults, LogLevel, MAX_SIZE};
use cni_protocol::{CniError, CniResult, Code, Env, Request, Verb, Version};
use datastore::Deadline;
use serde_json::Value;
use std::io::{IsTerminal as _, Read as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// The watchdog speaks this much after the engine's own deadline, so that the engine's better error
/// usually comes first, and undo has time.
const GRACE: Duration = Duration::from_secs(2);

const ABOUT: &str = "\
Percale: a CNI plugin with its own IPAM.

It is called by a container runtime, with CNI_COMMAND (ADD, DEL, CHECK, GC, STATUS, VERSION) and the
other variables of the CNI specification in the environment, and the network configuration on stdin.
Run under the name percale-ipam it is the IPAM of another plugin, such as bridge or macvlan.

By hand:
  CNI_COMMAND=VERSION percale            what it speaks
  percale --version                      which build it is
  percalectl ipam show                   what it has given out
  percalectl doctor                      what is wrong on this host

A configuration for /etc/cni/net.d/10-percale.conflist:
  {\"cniVersion\":\"1.0.0\",\"name\":\"pods\",\"plugins\":[{\"type\":\"percale\",\"ipMasq\":true,
   \"ipam\":{\"type\":\"percale-ipam\",\"pools\":[{\"cidr\":\"10.244.0.0/16\"}]}}]}
";

/// What a plugin program is able to do.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    pub stores: &'a dyn Stores,
    /// Requests about a cluster's store are served here; otherwise by the program beside this one.
    pub serves_clusters: bool,
}

/// Runs the process to its end.
pub fn main(program: Program<'_>) {
    let name = program_name();
    if let Some(command) = std::env::args().nth(1) {
        std::process::exit(by_hand(&name, &command));
    }
    if std::env::var_os("CNI_COMMAND").is_none_or(|c| c.is_empty()) {
        eprint!("{ABOUT}");
        std::process::exit(0);
    }
    let start = Instant::now();
    match catch_unwind(AssertUnwindSafe(|| answer(program, &name, start))) {
        Ok((json, code)) => watchdog::answer_once(json.as_bytes(), code),
        Err(_) => {
            let error = CniError::internal("the plugin panicked; this is a bug, its log has the place");
            watchdog::answer_once(error.to_json(Version::V1_0_0).to_string().as_bytes(), 1)
        }
    }
}

fn program_name() -> String {
    let first = std::env::args_os().next().unwrap_or_default();
    Path::new(&first).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Arguments mean a person: 0, or 64 for what is not understood.
fn by_hand(name: &str, command: &str) -> i32 {
    match command {
        "-v" | "--version" | "version" => println!("{name} {}", env!("CARGO_PKG_VERSION")),
        "-h" | "--help" | "help" => print!("{ABOUT}"),
        _ => {
            eprint!("{name}: unknown argument {command:?}\n\n{ABOUT}");
            return 64;
        }
    }
    0
}

/// What is printed, and the exit code.
fn answer(program: Program<'_>, name: &str, start: Instant) -> (String, i32) {
    let mut version = Version::V1_0_0;
    match serve(program, name, start, &mut version) {
        Ok(json) => (json.map(|json| json.to_string()).unwrap_or_default(), 0),
        Err(error) => (error.to_json(version).to_string(), 1),
    }
}

fn serve(
    program: Program<'_>,
    name: &str,
    start: Instant,
    version: &mut Version,
) -> Result<Option<Value>, CniError> {
    let parsed = Env::from_fn(|key| std::env::var_os(key)).and_then(|env| {
        let stdin = read_stdin(env.verb)?;
        Request::parse(env, &stdin, Defaults::for_name(name)).map(|req| (req, stdin))
    });
    let (req, stdin) = parsed.inspect_err(log_refusal)?;
    if req.verb == Verb::Version {
        return Ok(Some(cni_protocol::version::supported_json(req.conf.cni_version)));
    }
    *version = req.conf.cni_version;
    if !program.serves_clusters && engine::is_cluster(&req) {
        return Err(hand_over::to_cluster_program(&stdin)).inspect_err(log_refusal);
    }
    let limit = limit(&req);
    arm(&req, limit)?;
    let result = logged(program, name, &req, start, Deadline::after(limit))?;
    Ok(result.map(|result| result.to_json(*version)))
}

/// All of stdin. VERSION by hand, at a terminal, needs none.
fn read_stdin(verb: Verb) -> Result<Vec<u8>, CniError> {
    if verb == Verb::Version && std::io::stdin().is_terminal() {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::with_capacity(4096);
    let read = std::io::stdin().take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| CniError::io("stdin: cannot be read").caused_by(&e))?;
    Ok(bytes)
}

fn limit(req: &Request) -> Duration {
    if req.verb.must_succeed() { req.conf.del_timeout } else { req.conf.add_timeout }
}

/// Answers before the runtime loses patience, even if the kernel or a disk holds this process.
fn arm(req: &Request, limit: Duration) -> Result<(), CniError> {
    let msg = format!("{} took longer than {} seconds; try again", req.verb, limit.as_secs());
    let late = CniError::try_again(msg).to_json(req.conf.cni_version).to_string();
    watchdog::arm(limit + GRACE, late.into_bytes())
        .map_err(|e| CniError::io("timer: cannot be set").caused_by(&e))
}

/// Serves the request and writes its one line (C-07).
fn logged(
    program: Program<'_>,
    name: &str,
    req: &Request,
    start: Instant,
    deadline: Deadline,
) -> Result<Option<CniResult>, CniError> {
    let log = Log::open(&settings(req));
    for warning in &req.warnings {
        log.line(Level::Warn, &[("network", &req.conf.name), ("warning", warning)]);
    }
    let mut record = record(req);
    let calico = matches!(name, "calico" | "calico-ipam");
    let engine = Engine {
        stores: program.stores,
        ledger: &engine::Direct,
        log: &log,
        role: role(name),
        calico,
        reaped: false,
    };
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let netns = engine::open_netns(engine.role, req)?;
        engine.serve(req, netns.as_ref(), deadline, &mut record)
    }));
    let outcome = caught.unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
    record.total = Some(start.elapsed());
    if let Err(error) = &outcome {
        record.failure = Some(failure(error));
    }
    log.call(&record);
    outcome
}

/// The undo stack has run while the panic unwound.
fn panicked(panic: &(dyn std::any::Any + Send)) -> CniError {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    CniError::internal("the plugin panicked; this is a bug").with_details(text.unwrap_or_default())
}

fn role(name: &str) -> Role {
    match name {
        "percale-ipam" => Role::Ipam,
        "calico-ipam" => Role::CalicoIpam,
        _ => Role::Main,
    }
}

fn settings(req: &Request) -> LogSettings {
    let log = &req.conf.log;
    LogSettings {
        level: match log.level {
            LogLevel::Debug => Level::Debug,
            LogLevel::Info => Level::Info,
            LogLevel::Error => Level::Error,
        },
        path: req.paths.log_file.clone(),
        max_size_mb: log.max_size_mb.into(),
        max_age_days: log.max_age_days.into(),
        max_count: log.max_count as usize,
    }
}

fn record(req: &Request) -> Call {
    let at = req.attachment.as_ref();
    Call {
        verb: req.verb.to_string(),
        network: req.conf.name.clone(),
        container: at.map(|a| a.container_id.clone()).unwrap_or_default(),
        ifname: at.map(|a| a.ifname.clone()).unwrap_or_default(),
        pod: req.args.pod().map(|(namespace, pod)| format!("{namespace}/{pod}")).unwrap_or_default(),
        ..Call::default()
    }
}

fn failure(error: &CniError) -> Failure {
    Failure {
        code: error.code.number(),
        step: step(error),
        msg: error.msg.clone(),
        details: error.details.clone().unwrap_or_default(),
    }
}

/// The part that failed, for the log.
fn step(error: &CniError) -> &'static str {
    match error.code {
        Code::InvalidConfig | Code::UnsupportedField | Code::IncompatibleVersion | Code::Decode => {
            "configuration"
        }
        Code::InvalidEnvironment | Code::UnknownContainer => "environment",
        Code::NoFreeAddress | Code::AddressRefused => "ipam",
        Code::Kernel | Code::ForeignObject => "netlink",
        Code::StoreDamaged | Code::Io => "store",
        Code::Delegate | Code::Other(_) => "delegate",
        Code::CheckFailed => "check",
        Code::TryAgain | Code::NotAvailable | Code::LimitedConnectivity => "wait",
        Code::Internal => "internal",
    }
}

/// A request that could not be read has no log settings: stderr, which the runtime keeps.
fn log_refusal(error: &CniError) {
    let code = error.code.number();
    let fields: [(&str, &dyn std::fmt::Display); 3] =
        [("result", &"error"), ("code", &code), ("error", error)];
    Log::stderr(Level::Info).line(Level::Error, &fields);
}
