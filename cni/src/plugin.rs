//! The plugin process: argv, environment and stdin in, exactly one JSON document out.

use crate::engine::{self, Engine, Role, Stores};
use crate::log::{Call, Failure, Level, Log, LogSettings};
use crate::{daemon, hand_over, watchdog};
use cni_protocol::netconf::{Defaults, LogLevel, MAX_SIZE};
use cni_protocol::{CniError, CniResult, Code, Env, Request, Verb, Version};
use datastore::Deadline;
use std::io::{IsTerminal as _, Read as _};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
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

/// What is printed, or why nothing can be.
type Answered = Result<Option<String>, CniError>;

/// Time that DEL and GC keep for themselves when the daemon does not answer.
const OWN_TIME: Duration = Duration::from_secs(5);

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
        Ok(json) => (json.unwrap_or_default(), 0),
        Err(error) => (error.to_json(version).to_string(), 1),
    }
}

fn serve(program: Program<'_>, name: &str, start: Instant, version: &mut Version) -> Answered {
    let parsed = Env::from_fn(|key| std::env::var_os(key)).and_then(|env| {
        let stdin = read_stdin(env.verb)?;
        Request::parse(env, &stdin, Defaults::for_name(name)).map(|req| (req, stdin))
    });
    let (req, stdin) = parsed.inspect_err(log_refusal)?;
    if req.verb == Verb::Version {
        return Ok(Some(cni_protocol::version::supported_json(req.conf.cni_version).to_string()));
    }
    *version = req.conf.cni_version;
    let limit = limit(&req);
    arm(&req, limit)?;
    let deadline = Deadline::after(limit);
    let call = Logged::new(program, name, &req, start);
    let refusal = match call.ask_daemon(&stdin, deadline) {
        ControlFlow::Break(answer) => return answer,
        ControlFlow::Continue(why) => why,
    };
    if !program.serves_clusters && engine::is_cluster(&req) {
        return Err(hand_over::to_cluster_program(&stdin, deadline)).inspect_err(log_refusal);
    }
    let result = call.serve(deadline, refusal)?;
    Ok(result.map(|result| result.to_json(*version).to_string()))
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
    let limit = if req.verb.must_succeed() { req.conf.del_timeout } else { req.conf.add_timeout };
    hand_over::time_left().map_or(limit, |left| left.min(limit))
}

/// Answers before the runtime loses patience, even if the kernel or a disk holds this process.
fn arm(req: &Request, limit: Duration) -> Result<(), CniError> {
    let msg = format!("{} took longer than {} seconds; try again", req.verb, limit.as_secs());
    let late = CniError::try_again(msg).to_json(req.conf.cni_version).to_string();
    watchdog::arm(limit + GRACE, late.into_bytes())
        .map_err(|e| CniError::io("timer: cannot be set").caused_by(&e))
}

/// A call whose one line is written whoever serves it (C-07).
struct Logged<'a> {
    program: Program<'a>,
    name: &'a str,
    req: &'a Request,
    start: Instant,
    log: Log,
}

impl<'a> Logged<'a> {
    fn new(program: Program<'a>, name: &'a str, req: &'a Request, start: Instant) -> Self {
        Self { program, name, req, start, log: Log::open(&settings(req)) }
    }

    /// Has the daemon serve the request. To go on means to serve it here; with a reason, where there is
    /// a daemon.
    fn ask_daemon(&self, stdin: &[u8], deadline: Deadline) -> ControlFlow<Answered, Option<String>> {
        let asked = hand_over::time_left().is_some();
        let Some(socket) = self.req.paths.daemon_socket.as_ref().filter(|_| !asked) else {
            return ControlFlow::Continue(None);
        };
        let role = role(self.name);
        let Some(ask) = daemon::asking::of(self.req, self.name, role, stdin) else {
            return ControlFlow::Continue(None);
        };
        let mut record = record(self.req);
        let netns = match engine::open_netns(role, self.req) {
            Ok(netns) => netns,
            Err(error) => return ControlFlow::Break(self.end(record, Err(error))),
        };
        let netns = netns.as_ref().map(|netns| netns.as_fd());
        match daemon::ask(socket, &ask, netns, self.asking_time(deadline)) {
            daemon::Outcome::Served { outcome, log } => {
                daemon::add_to(&mut record, log);
                ControlFlow::Break(self.end(record, outcome))
            }
            daemon::Outcome::NotServed { why } => ControlFlow::Continue(why),
            daemon::Outcome::Lost { why } if self.req.verb.must_succeed() => {
                ControlFlow::Continue(Some(format!("percaled did not answer: {why}")))
            }
            daemon::Outcome::Lost { why } => {
                let error =
                    CniError::try_again("percaled did not answer in time; try again").with_details(why);
                ControlFlow::Break(self.end(record, Err(error)))
            }
        }
    }

    /// A clean-up keeps some time for itself.
    fn asking_time(&self, deadline: Deadline) -> Deadline {
        let own =
            if self.req.verb.must_succeed() { OWN_TIME.min(deadline.left() / 2) } else { Duration::ZERO };
        Deadline::after(deadline.left() - own)
    }

    /// Serves the request in this process. `note`: why the daemon did not.
    fn serve(&self, deadline: Deadline, note: Option<String>) -> Result<Option<CniResult>, CniError> {
        let req = self.req;
        for warning in &req.warnings {
            self.log.line(Level::Warn, &[("network", &req.conf.name), ("warning", warning)]);
        }
        let mut record = record(req);
        record.note = note.unwrap_or_default();
        let engine = self.engine();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let netns = engine::open_netns(engine.role, req)?;
            engine.serve(req, netns.as_ref(), deadline, &mut record)
        }));
        let outcome = caught.unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
        self.end(record, outcome)
    }

    fn engine(&self) -> Engine<'_> {
        Engine {
            stores: self.program.stores,
            ledger: &engine::Direct,
            log: &self.log,
            role: role(self.name),
            calico: matches!(self.name, "calico" | "calico-ipam"),
            reaped: false,
        }
    }

    fn end<T>(&self, mut record: Call, outcome: Result<T, CniError>) -> Result<T, CniError> {
        record.total = Some(self.start.elapsed());
        if let Err(error) = &outcome {
            record.failure = Some(failure(error));
        }
        self.log.call(&record);
        outcome
    }
}

/// The undo stack has run while the panic unwound.
pub fn panicked(panic: &(dyn std::any::Any + Send)) -> CniError {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    CniError::internal("the plugin panicked; this is a bug").with_details(text.unwrap_or_default())
}

/// The part that a program of this name plays.
pub fn role(name: &str) -> Role {
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

/// The beginning of a call's log line.
pub fn record(req: &Request) -> Call {
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
