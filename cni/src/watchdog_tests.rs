//! Every case runs in a process of its own, this test binary executed again with `ROLE` set:
//! the watchdog ends its process, and stdout is what a runtime would read.

use super::*;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

const ROLE: &str = "PERCALE_TEST_WATCHDOG";
/// Printed by the child before it arms: what the test harness prints lies before it.
const BEGIN: &str = "\n@begin@";
const LATE: &str = r#"{"code":11,"msg":"late"}"#;
const GOOD: &str = r#"{"cniVersion":"1.0.0"}"#;

/// Runs `role` in a child and gives what it printed as its answer, its exit status and time.
fn child(role: &str) -> (String, Option<i32>, Duration) {
    let started = Instant::now();
    let Output { stdout, status, .. } = command(role).output().unwrap();
    let text = String::from_utf8(stdout).unwrap();
    let answer = text.split_once(BEGIN).expect("the child ran").1;
    (answer.to_owned(), status.code(), started.elapsed())
}

fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "watchdog::tests::role", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).stdin(Stdio::null()).stderr(Stdio::null());
    if role == "blocked signal" {
        // SAFETY: between fork and exec only an async-signal-safe function is called.
        unsafe { command.pre_exec(block_signals) };
    }
    command
}

/// As a careless runtime would: the mask goes through exec to every thread.
fn block_signals() -> io::Result<()> {
    // SAFETY: `all` is initialised by sigfillset before it is read.
    let failed = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

/// The child's side; does nothing in the parent's run.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    write_all(BEGIN.as_bytes());
    match role.as_str() {
        "in time" => in_time(),
        "stuck" | "blocked signal" => stuck(),
        "spinning" => spinning(),
        "disarmed" => disarmed(),
        "zero" => zero(),
        "rearmed" => rearmed(),
        "many speakers" => many_speakers(),
        race => at_the_limit(race.strip_prefix("race ").unwrap().parse().unwrap()),
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn guard(limit: Duration) {
    arm(limit, LATE.into()).unwrap();
}

fn in_time() {
    guard(ms(30_000));
    answer_once(GOOD.as_bytes(), 0)
}

fn stuck() {
    guard(ms(30));
    // A thread that waits for itself, as behind a lock that nobody releases.
    let lock = std::sync::Mutex::new(());
    let _held = lock.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(lock.lock()));
        std::thread::sleep(ms(60_000));
    });
}

fn spinning() {
    guard(ms(30));
    loop {
        std::hint::spin_loop();
    }
}

fn disarmed() {
    guard(ms(20));
    disarm().unwrap();
    std::thread::sleep(ms(100));
    answer_once(GOOD.as_bytes(), 3)
}

fn zero() {
    guard(Duration::ZERO);
    std::thread::sleep(ms(60_000));
}

fn rearmed() {
    arm(ms(60_000), b"{}".to_vec()).unwrap();
    guard(ms(30));
    std::thread::sleep(ms(60_000));
}

fn many_speakers() {
    guard(ms(1));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| answer_once(GOOD.as_bytes(), 0));
        }
    });
}

/// The normal path speaks at about the same instant as the handler.
fn at_the_limit(offset_us: i64) {
    let limit = ms(2);
    guard(limit);
    let until = Instant::now() + Duration::from_micros((2_000 + offset_us).unsigned_abs());
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    answer_once(GOOD.as_bytes(), 0)
}

#[test]
fn an_answer_in_time_is_the_only_one() {
    let (answer, code, took) = child("in time");
    assert_eq!((answer.as_str(), code), (GOOD, Some(0)));
    assert!(took < ms(20_000), "waited for the watchdog: {took:?}");
}

#[test]
fn a_process_that_is_stuck_answers_and_ends() {
    for role in ["stuck", "spinning", "blocked signal", "zero", "rearmed"] {
        let (answer, code, took) = child(role);
        assert_eq!((answer.as_str(), code), (LATE, Some(1)), "{role}");
        assert!(took < ms(30_000), "{role} took {took:?}");
    }
}

#[test]
fn a_disarmed_watchdog_is_silent() {
    let (answer, code, _) = child("disarmed");
    assert_eq!((answer.as_str(), code), (GOOD, Some(3)));
}

#[test]
fn both_sides_at_once_give_one_document() {
    let roles = (-20..20).map(|n| format!("race {}", n * 15));
    for role in roles.chain((0..5).map(|_| "many speakers".to_owned())) {
        let (answer, code, _) = child(&role);
        let outcome = (answer.as_str(), code);
        assert!(outcome == (GOOD, Some(0)) || outcome == (LATE, Some(1)), "{role}: {outcome:?}");
    }
}
