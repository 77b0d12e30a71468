//! The plugin binary: `percale`, and by its file name `percale-ipam`, `calico`, `calico-ipam`.

use cni::engine::EmbeddedStores;
use cni::plugin::{self, Program};

fn main() {
    plugin::main(Program { stores: &EmbeddedStores, serves_clusters: false });
}
