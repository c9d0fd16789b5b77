//! The search for the least weight of the loss that still finds an adversarial example.

/// From this number of steps on, the last one repeats the least weight that succeeded.
const REPEAT_FROM: usize = 10;
/// Greatest weight, in the repeated step.
const GREATEST: f64 = 1e10;
/// Steps between two looks at whether a loss still falls, at least: in fewer it may rise on the way down.
pub(crate) const LEAST_STEPS_BETWEEN_LOOKS: usize = 100;

/// Ten times greater until a first success, then halfway between the greatest failure and the least success: the
/// search that the Carlini-Wagner, elastic-net and L-BFGS attacks share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConstantSearch {
    value: f64,
    failed: f64,
    succeeded: f64,
    step: usize,
    steps: usize,
}

impl ConstantSearch {
    pub(crate) fn new(initial: f64, steps: usize) -> Self {
        Self { value: initial, failed: 0.0, succeeded: f64::INFINITY, step: 0, steps }
    }

    /// The weight to try.
    pub(crate) fn value(&self) -> f64 {
        self.value
    }

    /// Notes whether the weight succeeded. Returns whether there is another one to try.
    pub(crate) fn advance(&mut self, success: bool) -> bool {
        if success {
            self.succeeded = self.succeeded.min(self.value);
        } else {
            self.failed = self.failed.max(self.value);
        }
        self.step += 1;
        self.value = if self.steps >= REPEAT_FROM && self.step + 1 == self.steps {
            self.succeeded.min(GREATEST)
        } else if self.succeeded.is_finite() {
            0.5 * (self.failed + self.succeeded)
        } else {
            self.value * 10.0
        };
        self.step < self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(steps: usize, enough: f64) -> Vec<f64> {
        let mut search = ConstantSearch::new(1.0, steps);
        let mut values = vec![search.value()];
        while search.advance(search.value() >= enough) {
            values.push(search.value());
        }
        values
    }

    #[test]
    fn weights_grow_until_a_success_and_then_close_in() {
        assert_eq!(tried(6, 30.0), [1.0, 10.0, 100.0, 55.0, 32.5, 21.25]);
        assert_eq!(tried(3, 1e9), [1.0, 10.0, 100.0]);
    }

    #[test]
    fn the_last_of_many_steps_repeats_the_least_success() {
        let values = tried(10, 30.0);
        let least = values[..9].iter().copied().filter(|value| *value >= 30.0).fold(f64::INFINITY, f64::min);
        assert_eq!(values[9], least);
    }
}
