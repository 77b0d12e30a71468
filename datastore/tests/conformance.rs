//! The embedded store does what every back end must.

use datastore::conformance;
use datastore::embedded::{Embedded, Mode};

#[test]
fn the_embedded_store_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Mode::Create).unwrap();
    conformance::run(&store, true);
}
