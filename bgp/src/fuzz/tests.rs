//! Random octets into every entry point; 40 times as many with `PERCALE_FULL=1`, others with `PERCALE_SEED=N`.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn config() -> ProptestConfig {
    let cases = if std::env::var_os("PERCALE_FULL").is_some() { 40_000 } else { 1_000 };
    let seed = std::env::var("PERCALE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn updates(data in vec(any::<u8>(), 0..200)) {
        super::update(&data);
    }

    #[test]
    fn streams(data in vec(any::<u8>(), 0..200)) {
        super::messages(&data);
    }

    #[test]
    fn bfd_packets(data in vec(any::<u8>(), 0..40)) {
        super::bfd_packet(&data);
    }

    #[test]
    fn sessions(data in vec(any::<u8>(), 0..400)) {
        super::session(&data);
    }

    #[test]
    fn rib_operations(data in vec(any::<u8>(), 0..1500)) {
        super::rib_operations(&data);
    }
}
