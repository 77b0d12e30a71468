//! The plugin binary: `percale`, and by its file name `percale-ipam`, `calico`, `calico-ipam`.
#![no_main]

use cni::arena::Arena;
use cni::engine::EmbeddedStores;
use cni::plugin::{self, Program};
use cni::start;

#[global_allocator]
static ARENA: Arena = Arena::new();

/// C's `main`. The arguments are read where they are needed.
// SAFETY: no other symbol of a program has this name.
#[unsafe(no_mangle)]
extern "C" fn main(_: libc::c_int, _: *const *const libc::c_char) -> libc::c_int {
    ARENA.serve();
    start::prepare();
    plugin::main(Program { stores: &EmbeddedStores, serves_clusters: false });
    0
}
