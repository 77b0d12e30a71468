//! The stack of done steps: what to take back, newest first, when a later step fails.

/// Undo actions of the steps done so far. Dropped without [`Undo::keep`], it runs them, so that an
/// early return and a panic are handled alike.
#[derive(Default)]
pub(crate) struct Undo<'a> {
    steps: Vec<(&'static str, Step<'a>)>,
}

type Step<'a> = Box<dyn FnOnce() -> Result<(), String> + 'a>;

impl<'a> Undo<'a> {
    /// Records how to take back a step that was just done.
    pub(crate) fn push(&mut self, what: &'static str, step: impl FnOnce() -> Result<(), String> + 'a) {
        self.steps.push((what, Box::new(step)));
    }

    /// The whole succeeded: nothing is taken back.
    pub(crate) fn keep(mut self) {
        self.steps.clear();
    }

    /// Takes everything back now. The answer names the steps that could not be; they are what the
    /// next DEL or GC finds.
    pub(crate) fn run(&mut self) -> Vec<String> {
        let mut failed = Vec::new();
        while let Some((what, step)) = self.steps.pop() {
            if let Err(why) = step() {
                failed.push(format!("{what}: {why}"));
            }
        }
        failed
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.run();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn runs_newest_first_and_goes_on_after_a_failure() {
        let order = RefCell::new(Vec::new());
        let mut undo = Undo::default();
        for n in 1..=3 {
            let order = &order;
            undo.push("step", move || {
                order.borrow_mut().push(n);
                if n == 2 { Err("stuck".into()) } else { Ok(()) }
            });
        }
        assert_eq!(undo.run(), ["step: stuck"]);
        assert_eq!(*order.borrow(), [3, 2, 1]);
    }

    #[test]
    fn a_panic_takes_steps_back_and_keep_does_not() {
        let count = RefCell::new(0);
        let kept = RefCell::new(0);
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut undo = Undo::default();
            undo.push("step", || {
                *count.borrow_mut() += 1;
                Ok(())
            });
            panic!("in the middle");
        }));
        let mut undo = Undo::default();
        undo.push("step", || {
            *kept.borrow_mut() += 1;
            Ok(())
        });
        undo.keep();
        assert_eq!((*count.borrow(), *kept.borrow()), (1, 0));
    }
}
