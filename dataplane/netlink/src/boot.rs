//! Which run of the kernel this is.

use crate::Error;

/// The kernel's random id of this boot, as 36 characters of text; a new one after each reboot.
///
/// # Errors
/// `Io` when `/proc` is not there.
pub fn boot_id() -> Result<String, Error> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    crate::sysctl::read(PATH)
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_a_uuid_that_stays() {
        let first = super::boot_id().unwrap();
        assert_eq!(first.len(), 36, "{first:?}");
        assert_eq!(super::boot_id().unwrap(), first);
    }
}
