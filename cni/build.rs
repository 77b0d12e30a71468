//! Links the plugin's programs statically: a runtime executes it at every pod start and stop, and loading shared
//! libraries costs a quarter of a millisecond each time.
//!
//! `-C target-feature=+crt-static` would need `--target` (procedural macros cannot be built with it),
//! and so another output directory. Instead the few libraries that rustc asks for by name are resolved,
//! for these binaries, to linker scripts that name the static archives.

use std::{env, fs, path::Path};

/// Library asked for, archives that answer.
const STATIC: [(&str, &str); 3] =
    [("gcc_s", "libgcc_eh.a libc.a"), ("c", "libc.a libgcc_eh.a libgcc.a"), ("m", "libm.a")];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let gnu_linux = env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux")
        && env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu");
    if !gnu_linux {
        return;
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    for (name, archives) in STATIC {
        let script = Path::new(&out).join(format!("lib{name}.so"));
        fs::write(script, format!("GROUP ( {archives} )\n")).expect("OUT_DIR is writable");
    }
    for program in ["percale", "percale-cluster"] {
        for arg in [&format!("-L{out}"), "-static", "-no-pie"] {
            println!("cargo:rustc-link-arg-bin={program}={arg}");
        }
    }
}
