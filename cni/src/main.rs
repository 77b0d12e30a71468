//! The plugin binary: `percale`, and by its file name `percale-ipam`, `calico`, `calico-ipam`.
#![no_main]

use cni::arena::Arena;
use cni::engine::EmbeddedStores;
use cni::plugin::{self, Program};
use cni::start;

#[cfg(musl)]
mod musl;

#[global_allocator]
static ARENA: Arena = Arena::new();

/// C's `main`.
// SAFETY: no other symbol of a program has this name.
#[unsafe(no_mangle)]
extern "C" fn main(count: libc::c_int, arguments: *const *const libc::c_char) -> libc::c_int {
    #[cfg(musl)]
    musl::initialise(count, arguments);
    #[cfg(not(musl))]
    let _ = (count, arguments);
    ARENA.serve();
    start::prepare();
    plugin::main(Program { stores: &EmbeddedStores, serves_clusters: false });
    0
}
