//! The plugin binary: `percale`, and by its file name `percale-ipam`, `calico`, `calico-ipam`.

fn main() {
    cni::plugin::main()
}
