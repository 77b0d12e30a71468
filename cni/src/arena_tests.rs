use super::*;

fn arena() -> Box<Arena> {
    // SAFETY: zeros are what `new` makes, and the stack has no room for the piece.
    let arena: Box<Arena> = unsafe { Box::new_zeroed().assume_init() };
    arena.serve();
    arena
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// Takes, grows, shrinks and gives back blocks by chance; what each holds must stay its own.
#[test]
fn blocks_are_aligned_and_never_overlap() {
    let arena = arena();
    let mut held: Vec<(*mut u8, usize, u8)> = Vec::new();
    let mut chance = 1u64;
    for step in 0..200_000u32 {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = (chance >> 33) as usize;
        let size = 1 + pick % [40, 700, 5000, 150_000][step as usize % 4];
        let tag = step as u8;
        // SAFETY: every block is used as its layout says, and given back once.
        unsafe {
            match (pick % 3, held.len()) {
                (0, 1..) => {
                    let (block, len, tag) = held.swap_remove(pick % held.len());
                    assert_held(block, len, tag);
                    arena.dealloc(block, layout(len));
                }
                (1, 1..) => {
                    let at = pick % held.len();
                    let (block, len, tag) = held[at];
                    let new = arena.realloc(block, layout(len), size);
                    assert_held(new, len.min(size), tag);
                    new.write_bytes(tag, size);
                    held[at] = (new, size, tag);
                }
                _ if held.len() < 60 => {
                    let block = arena.alloc(layout(size));
                    assert!((block as usize).is_multiple_of(16));
                    block.write_bytes(tag, size);
                    held.push((block, size, tag));
                }
                _ => {}
            }
        }
    }
    for (block, len, tag) in held {
        // SAFETY: as above.
        unsafe {
            assert_held(block, len, tag);
            arena.dealloc(block, layout(len));
        }
    }
}

unsafe fn assert_held(block: *mut u8, len: usize, tag: u8) {
    // SAFETY: the caller holds a block of this length that was written to the end.
    let bytes = unsafe { std::slice::from_raw_parts(block, len) };
    assert!(bytes.iter().all(|b| *b == tag), "a block was changed by others");
}

#[test]
fn what_is_given_back_is_used_again() {
    let arena = arena();
    for size in [1, 16, 17, 1000, 1024, 1025, 40_000, LARGEST] {
        // SAFETY: each block is given back once, with its layout.
        unsafe {
            let first = arena.alloc(layout(size));
            assert!(arena.holds(first), "{size}");
            arena.dealloc(first, layout(size));
            let again = arena.alloc(layout(size));
            assert_eq!(first, again, "{size}");
            arena.dealloc(again, layout(size));
        }
    }
}

#[test]
fn what_is_asked_for_as_zeros_is_zero_also_when_it_was_used_before() {
    let arena = arena();
    for size in [16, 1000, 20_000, LARGEST + 1] {
        for _ in 0..2 {
            // SAFETY: each block is given back once, with its layout.
            unsafe {
                let block = arena.alloc_zeroed(layout(size));
                assert_held(block, size, 0);
                block.write_bytes(7, size);
                arena.dealloc(block, layout(size));
            }
        }
    }
}

#[test]
fn the_system_serves_what_is_large_what_is_too_much_and_other_threads() {
    let arena = arena();
    // SAFETY: each block is given back once, with its layout.
    unsafe {
        let large = arena.alloc(layout(LARGEST + 1));
        assert!(!arena.holds(large));
        arena.dealloc(large, layout(LARGEST + 1));
        let blocks: Vec<_> = (0..PIECE / LARGEST + 2).map(|_| arena.alloc(layout(LARGEST))).collect();
        assert_eq!(blocks.iter().filter(|b| arena.holds(**b)).count(), PIECE / LARGEST);
        blocks.into_iter().for_each(|b| arena.dealloc(b, layout(LARGEST)));
        let mine = arena.alloc(layout(8)) as usize;
        let elsewhere = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                arena.dealloc(mine as *mut u8, layout(8));
                let block = arena.alloc(layout(8));
                let held = arena.holds(block);
                arena.dealloc(block, layout(8));
                held
            });
            other.join().unwrap()
        });
        assert!(!elsewhere);
    }
}

#[test]
fn every_size_has_a_class_that_holds_it() {
    for size in 0..=LARGEST {
        let (class, room) = class_of(size);
        assert!(class < CLASSES && room >= size && room.is_multiple_of(STEP));
        assert_eq!(class_of(room), (class, room));
    }
}
