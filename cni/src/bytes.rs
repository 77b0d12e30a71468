//! Comparing and copying of bytes, for programs whose C library does it byte by byte or with string
//! instructions: what is compared and copied here is mostly a few dozen bytes long.
//!
//! The empty `asm!` in each loop keeps the compiler from making of it a call of the very function that it is.

use std::arch::asm;
use std::cmp::Ordering;

/// Reads at any address.
// SAFETY: the caller's; `T` is an integer, and its bytes from `at` on are readable.
#[inline(always)]
unsafe fn load<T: Copy>(at: *const u8) -> T {
    unsafe { at.cast::<T>().read_unaligned() }
}

/// Writes at any address.
// SAFETY: the caller's; the bytes from `at` on, as many as a `T` has, are writable.
#[inline(always)]
unsafe fn store<T: Copy>(at: *mut u8, value: T) {
    unsafe { at.cast::<T>().write_unaligned(value) }
}

/// The order of `len` bytes at `a` and at `b`, as unsigned numbers.
///
/// # Safety
/// `len` bytes are readable at both.
#[inline]
pub unsafe fn compare(a: *const u8, b: *const u8, len: usize) -> Ordering {
    const STEP: usize = size_of::<u64>();
    let mut at = 0;
    // SAFETY: `at` stays so far below `len` as the loads are long; the last one goes over bytes that are equal.
    unsafe {
        while at + STEP <= len {
            let (x, y): (u64, u64) = (load(a.add(at)), load(b.add(at)));
            if x != y {
                return u64::from_be(x).cmp(&u64::from_be(y));
            }
            at += STEP;
            asm!("", options(nostack, preserves_flags));
        }
        if at != len && at != 0 {
            let (x, y): (u64, u64) = (load(a.add(len - STEP)), load(b.add(len - STEP)));
            return u64::from_be(x).cmp(&u64::from_be(y));
        }
        while at != len {
            let (x, y): (u8, u8) = (load(a.add(at)), load(b.add(at)));
            if x != y {
                return x.cmp(&y);
            }
            at += 1;
            asm!("", options(nostack, preserves_flags));
        }
    }
    Ordering::Equal
}

/// Copies `len` bytes that may overlap if `to` is below `from`.
///
/// # Safety
/// `len` bytes are readable at `from` and writable at `to`.
#[inline(always)]
pub unsafe fn copy_up(to: *mut u8, from: *const u8, len: usize) {
    const STEP: usize = size_of::<u128>();
    // SAFETY: all places are within `len`. The end is read before anything is written, and what is written
    // in a round lies before what later rounds read.
    unsafe {
        if len < STEP {
            return copy_few(to, from, len);
        }
        let end: u128 = load(from.add(len - STEP));
        let mut at = 0;
        while at < len - STEP {
            store(to.add(at), load::<u128>(from.add(at)));
            at += STEP;
            asm!("", options(nostack, preserves_flags));
        }
        store(to.add(len - STEP), end);
    }
}

/// Copies `len` bytes that may overlap.
///
/// # Safety
/// As [`copy_up`].
#[inline(always)]
pub unsafe fn copy_any(to: *mut u8, from: *const u8, len: usize) {
    const STEP: usize = size_of::<u128>();
    // SAFETY: as in `copy_up`, from the end to the beginning.
    unsafe {
        if len < STEP || (to as usize).wrapping_sub(from as usize) >= len {
            return copy_up(to, from, len);
        }
        let begin: u128 = load(from);
        let mut at = len - STEP;
        while at > 0 {
            store(to.add(at), load::<u128>(from.add(at)));
            at = at.saturating_sub(STEP);
            asm!("", options(nostack, preserves_flags));
        }
        store(to, begin);
    }
}

/// Copies fewer than 16 bytes by two pieces that may overlap; both are read before one is written.
#[inline(always)]
unsafe fn copy_few(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's promise of `len` bytes; each branch stays within them.
    unsafe {
        match len {
            8.. => copy_ends::<u64>(to, from, len),
            4.. => copy_ends::<u32>(to, from, len),
            2.. => copy_ends::<u16>(to, from, len),
            1 => store(to, load::<u8>(from)),
            0 => {}
        }
    }
}

#[inline(always)]
unsafe fn copy_ends<T: Copy>(to: *mut u8, from: *const u8, len: usize) {
    let last = len - size_of::<T>();
    // SAFETY: `len` is at least the size of a `T`, at most twice that.
    unsafe {
        let (begin, end): (T, T) = (load(from), load(from.add(last)));
        store(to, begin);
        store(to.add(last), end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    #[test]
    fn bytes_compare_as_slices_do() {
        for len in 0..70 {
            let a = pattern(len);
            for at in 0..=len {
                let mut b = a.clone();
                if let Some(byte) = b.get_mut(at) {
                    *byte = byte.wrapping_add(if at % 2 == 0 { 1 } else { 200 });
                    // What differs later does not count.
                    b[at + 1..].fill(0);
                }
                let found = unsafe { compare(a.as_ptr(), b.as_ptr(), len) };
                assert_eq!(found, a.cmp(&b), "{len} bytes, other at {at}");
            }
        }
    }

    #[test]
    fn copies_are_right_at_every_length_and_overlap() {
        for len in 0..150 {
            for (from, to) in (0..40).flat_map(|shift| [(shift, 0), (0, shift), (shift, 200)]) {
                let mut bytes = pattern(400);
                let mut expected = bytes.clone();
                expected.copy_within(from..from + len, to);
                let start = bytes.as_mut_ptr();
                unsafe { copy_any(start.add(to), start.add(from), len) };
                assert_eq!(bytes, expected, "{len} bytes from {from} to {to}");
            }
        }
    }
}
