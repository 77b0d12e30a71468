//! `percale-cluster`: the same plugin with the clients of cluster stores. `percale` executes it for
//! networks whose objects are in one (see `hand_over.rs`).

use cni::engine::ClusterStores;
use cni::plugin::{self, Program};

fn main() {
    plugin::main(Program { stores: &ClusterStores::default(), serves_clusters: true });
}
