//! The allocator of the plugin's program: one short-lived thread that does everything.
//!
//! Blocks of a few sizes are cut from one piece of zeroed memory (`.bss`, so that only what is used is
//! ever there) and, when they are given back, kept in a list for the next one of the size. That is a few
//! instructions each way where a general allocator takes fifty. What is larger, what comes when the piece
//! is used up, and what other threads ask for goes to the system's allocator: memory stays bounded by what
//! is in use plus the piece.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::ptr;

/// Bytes that are handed out at most.
const PIECE: usize = 1 << 20;
const STEP: usize = 16;
/// Up to here sizes are multiples of [`STEP`], above they are powers of two.
const FINE: usize = 1024;
/// A store's log is read in one piece, of up to 96 KiB.
const LARGEST: usize = 256 << 10;
const CLASSES: usize = FINE / STEP + (LARGEST / FINE).ilog2() as usize + 1;

thread_local! {
    /// This is the thread that the arena serves.
    static SERVED: Cell<bool> = const { Cell::new(false) };
}

/// For `#[global_allocator]`. Until [`Arena::serve`] it is the system's allocator.
pub struct Arena {
    state: UnsafeCell<State>,
}

#[repr(C, align(16))]
struct State {
    piece: [u8; PIECE],
    used: usize,
    /// By class, what was given back: each block begins with the address of the next.
    free: [*mut u8; CLASSES],
}

// SAFETY: `state` is touched only by the one thread for which `SERVED` is set.
unsafe impl Sync for Arena {}

impl Arena {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        let free = [ptr::null_mut(); CLASSES];
        Self { state: UnsafeCell::new(State { piece: [0; PIECE], used: 0, free }) }
    }

    /// Serves the calling thread from here on. Only one thread of a process may call this.
    pub fn serve(&self) {
        SERVED.set(true);
    }

    fn holds(&self, block: *mut u8) -> bool {
        (block as usize).wrapping_sub(self.state.get() as usize) < PIECE
    }

    #[inline(always)]
    fn take(&self, layout: Layout) -> Option<Block> {
        if layout.align() > STEP || layout.size() > LARGEST || !SERVED.get() {
            return None;
        }
        let (class, size) = class_of(layout.size());
        // SAFETY: this is the served thread, and the reference ends with this call.
        unsafe { (*self.state.get()).take(class, size) }
    }
}

/// Memory that was taken. One that was never given back is still zero.
struct Block {
    at: *mut u8,
    is_zero: bool,
}

impl State {
    #[inline(always)]
    fn take(&mut self, class: usize, size: usize) -> Option<Block> {
        let free = self.free[class];
        if !free.is_null() {
            // SAFETY: a block in a list was given back, has at least STEP bytes and is aligned.
            self.free[class] = unsafe { free.cast::<*mut u8>().read() };
            return Some(Block { at: free, is_zero: false });
        }
        let block = self.piece.get_mut(self.used..self.used + size)?;
        self.used += size;
        Some(Block { at: block.as_mut_ptr(), is_zero: true })
    }

    fn give_back(&mut self, class: usize, block: *mut u8) {
        // SAFETY: the block was taken, has at least STEP bytes and is aligned; nobody uses it any more.
        unsafe { block.cast::<*mut u8>().write(self.free[class]) };
        self.free[class] = block;
    }
}

/// Number and size of the class for `size` bytes, at most [`LARGEST`].
#[inline(always)]
fn class_of(size: usize) -> (usize, usize) {
    if size <= FINE {
        let steps = size.div_ceil(STEP).max(1);
        return (steps - 1, steps * STEP);
    }
    let size = size.next_power_of_two();
    (FINE / STEP + (size / FINE).ilog2() as usize - 1, size)
}

// SAFETY: blocks of the arena are disjoint, aligned to STEP and at least as large as asked for; a block
// goes back to whom it came from, which its address tells.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        self.take(layout).map_or_else(|| unsafe { System.alloc(layout) }, |block| block.at)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        let Some(block) = self.take(layout) else { return unsafe { System.alloc_zeroed(layout) } };
        if !block.is_zero {
            // SAFETY: the block has at least the size of `layout`.
            unsafe { block.at.write_bytes(0, layout.size()) };
        }
        block.at
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !self.holds(block) {
            // SAFETY: it came from `System`, with this layout.
            return unsafe { System.dealloc(block, layout) };
        }
        // What another thread drops stays taken: rare, and the process ends soon.
        if SERVED.get() {
            // SAFETY: this is the served thread, and the reference ends with this call.
            unsafe { (*self.state.get()).give_back(class_of(layout.size()).0, block) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.holds(block) {
            // SAFETY: it came from `System`, with this layout.
            return unsafe { System.realloc(block, layout, size) };
        }
        if size <= LARGEST && class_of(size) == class_of(layout.size()) {
            return block;
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is a valid size; both
        // blocks have room for the smaller of the two sizes, and they are different blocks.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
#[path = "arena_tests.rs"]
mod tests;
