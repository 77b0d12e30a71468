//! What is asked of a C library by name and musl does not have, for programs linked with it (`build.rs`).

use cni::bytes;
use libc::{c_char, c_int, c_void, dl_phdr_info};
use std::ptr;

/// `struct dl_find_object` of glibc's `dlfcn.h`.
#[repr(C)]
struct Found {
    flags: u64,
    map_start: *mut c_void,
    map_end: *mut c_void,
    link_map: *mut c_void,
    eh_frame: *mut c_void,
    reserved: [u64; 7],
}

/// A function that runs before `main`, as glibc calls it.
type Initialiser = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

unsafe extern "C" {
    /// Where the linker put the program's initialisers.
    static __init_array_start: [Initialiser; 0];
    static __init_array_end: [Initialiser; 0];
    static environ: *const *const c_char;
}

/// Instead of musl's own, which would call the initialisers without arguments: [`initialise`] does it.
// SAFETY: musl has a weak symbol of this name, for its dynamic linker to replace.
#[unsafe(no_mangle)]
extern "C" fn __libc_start_init() {}

/// Runs the initialisers. The standard library has one that takes the program's arguments from its own.
/// Call it first, from C's `main`, with what that was given.
pub fn initialise(count: c_int, arguments: *const *const c_char) {
    // SAFETY: the linker defines both, around an array of initialisers; the environment is not changed before.
    unsafe {
        let mut at = (&raw const __init_array_start).cast::<Initialiser>();
        while at != (&raw const __init_array_end).cast() {
            (*at)(count, arguments, environ);
            at = at.add(1);
        }
    }
}

/// Rust's standard library asks before it relies on `posix_spawn` as glibc 2.24 made it: a version older
/// than that, and it does with fork and exec.
// SAFETY: musl has no symbol of this name.
#[unsafe(no_mangle)]
extern "C" fn gnu_get_libc_version() -> *const c_char {
    c"0.0".as_ptr()
}

/// Where GCC's unwinder finds the tables of the program, the one object that there is.
// SAFETY: musl has no symbol of this name; the unwinder passes a `Found` to be filled in.
#[unsafe(no_mangle)]
unsafe extern "C" fn _dl_find_object(_address: *mut c_void, found: *mut Found) -> c_int {
    // SAFETY: `tables` is called during this call only, with `found` as its data.
    match unsafe { libc::dl_iterate_phdr(Some(tables), found.cast()) } {
        1 => 0,
        _ => -1,
    }
}

/// 1 where the object has unwinding tables.
unsafe extern "C" fn tables(object: *mut dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
    // SAFETY: the C library passes its description of an object, with that many program headers.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    let Some(header) = headers.iter().find(|header| header.p_type == libc::PT_GNU_EH_FRAME) else {
        return 0;
    };
    let place = |address: u64| ptr::with_exposed_provenance_mut(address as usize);
    let eh_frame = place(base + header.p_vaddr);
    let all = Found {
        flags: 0,
        map_start: ptr::null_mut(),
        map_end: place(u64::MAX),
        link_map: ptr::null_mut(),
        eh_frame,
        reserved: [0; 7],
    };
    // SAFETY: `found` is what the unwinder passed to `_dl_find_object`.
    unsafe { found.cast::<Found>().write(all) };
    1
}

// Musl compares byte by byte, and copies with string instructions, whose start takes longer than most copies here.

/// # Safety
/// C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    // SAFETY: the caller's promise is passed on; so in the others below.
    unsafe { bytes::compare(a, b, len) as c_int }
}

/// # Safety
/// C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    unsafe { bytes::compare(a, b, len) as c_int }
}

/// # Safety
/// C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    unsafe { bytes::copy_up(to, from, len) };
    to
}

/// # Safety
/// C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    unsafe { bytes::copy_any(to, from, len) };
    to
}
