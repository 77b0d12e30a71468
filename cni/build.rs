//! Links the plugin's programs statically: a runtime executes them at every pod start and stop, and loading shared
//! libraries costs a quarter of a millisecond each time.
//!
//! `percale` is linked with musl's C library where Debian's musl-dev is installed, else with glibc's. Before `main`
//! glibc asks the processor some sixty questions (CPUID), which in a virtual machine are a third of a
//! millisecond and three quarters of an empty process. Rust's standard library for glibc can do with musl: the
//! structures that it passes are the same in both, what newer ones have it looks up weakly, and `src/musl.rs` has the rest.
//!
//! `-C target-feature=+crt-static` would need `--target` (procedural macros cannot be built with it),
//! and so another output directory. Instead the few libraries that rustc asks for by name are resolved,
//! for these binaries, to linker scripts that name the static archives.

use std::{env, fs, path::Path, path::PathBuf};

/// What GCC's unwinder asks for weakly, which takes nothing out of an archive, and then calls.
const THREADS: [&str; 7] = [
    "__pthread_key_create",
    "pthread_getspecific",
    "pthread_key_create",
    "pthread_mutex_lock",
    "pthread_mutex_unlock",
    "pthread_once",
    "pthread_setspecific",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(musl)");
    let gnu_linux = env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux")
        && env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu");
    if !gnu_linux {
        return;
    }
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        // rustc links with lld there: functions of the same code become one, and those that calls run lie apart.
        let hot = Path::new(env!("CARGO_MANIFEST_DIR")).join("hot.ld");
        println!("cargo:rerun-if-changed={}", hot.display());
        args("percale", &["-Wl,--icf=all".to_owned(), format!("-Wl,-T,{}", hot.display())]);
    }
    link("percale-cluster", "libm.a libc.a");
    match musl() {
        Some(dir) => {
            println!("cargo:rustc-cfg=musl");
            link("percale", &format!("{}/libc.a", dir.display()));
            args("percale", &["-nostartfiles".to_owned(), format!("{}/crt1.o", dir.display())]);
            args("percale", &THREADS.map(|name| format!("-Wl,-u,{name}")));
        }
        None => link("percale", "libm.a libc.a"),
    }
}

/// Where Debian keeps musl for the target.
fn musl() -> Option<PathBuf> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target's architecture");
    let dir = PathBuf::from(format!("/usr/lib/{arch}-linux-musl"));
    println!("cargo:rerun-if-changed={}", dir.join("libc.a").display());
    dir.join("libc.a").is_file().then_some(dir)
}

/// Resolves the libraries of a program to static archives, with this C library.
fn link(program: &str, libc: &str) {
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let scripts = Path::new(&out).join(program);
    fs::create_dir_all(&scripts).expect("OUT_DIR is writable");
    let archives = format!("GROUP ( {libc} libgcc_eh.a libgcc.a )\n");
    for name in ["gcc_s", "c", "m"] {
        fs::write(scripts.join(format!("lib{name}.so")), &archives).expect("OUT_DIR is writable");
    }
    args(program, &[format!("-L{}", scripts.display()), "-static".to_owned(), "-no-pie".to_owned()]);
}

fn args(program: &str, args: &[String]) {
    for arg in args {
        println!("cargo:rustc-link-arg-bin={program}={arg}");
    }
}
