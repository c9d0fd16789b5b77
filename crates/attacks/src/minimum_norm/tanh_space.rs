//! The change of variable of the Carlini-Wagner attacks: `x' = middle + half·tanh(w)` never leaves the bounds.

use super::frame::Frame;

/// Keeps the inverse tangent of a value on its bound finite.
const INSIDE: f64 = 1.0 - 1e-6;

/// Middle and half width of the room of each element, in the unit of the range.
pub(crate) struct TanhSpace {
    middles: Vec<f64>,
    halves: Vec<f64>,
}

impl TanhSpace {
    pub(crate) fn new(frame: &Frame<'_>) -> Self {
        let rooms = (0..frame.elements()).map(|element| frame.room(element));
        let (middles, halves) = rooms.map(|(low, high)| (0.5 * (low + high), 0.5 * (high - low))).unzip();
        Self { middles, halves }
    }

    /// The variables at a change; 0 where an element has no room.
    pub(crate) fn variables(&self, change: &[f64]) -> Vec<f64> {
        let parts = change.iter().zip(self.middles.iter().zip(&self.halves));
        parts
            .map(
                |(change, (middle, half))| {
                    if *half > 0.0 { ((change - middle) / half * INSIDE).clamp(-INSIDE, INSIDE).atanh() } else { 0.0 }
                },
            )
            .collect()
    }

    /// The change at the variables.
    pub(crate) fn change(&self, variables: &[f64]) -> Vec<f64> {
        let parts = variables.iter().zip(self.middles.iter().zip(&self.halves));
        parts.map(|(variable, (middle, half))| middle + half * variable.tanh()).collect()
    }

    /// The derivative by the variables, from the derivative by the change.
    pub(crate) fn pull_back(&self, variables: &[f64], slopes: &[f64]) -> Vec<f64> {
        let parts = variables.iter().zip(&self.halves).zip(slopes);
        parts.map(|((variable, half), slope)| slope * half * (1.0 - variable.tanh().powi(2))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::Domain;

    #[test]
    fn variables_and_changes_invert_each_other_and_bounds_hold() {
        let domain = Domain::grey_levels(&[3], 100.0).unwrap().with_region(vec![true, true, false]).unwrap();
        let clean = [20.0, 0.0, 50.0];
        let space = TanhSpace::new(&Frame::new(&domain, &clean));
        let change = [0.3, 0.0, 0.0];
        let again = space.change(&space.variables(&change));
        assert!(again.iter().zip(change).all(|(a, b)| (a - b).abs() < 1e-6), "{again:?}");
        let far = space.change(&[50.0, -50.0, 50.0]);
        assert!((far[0] - 0.8).abs() < 1e-12 && far[1].abs() < 1e-12 && far[2] == 0.0, "{far:?}");
        let slope = (space.change(&[0.501, 0.0, 0.0])[0] - space.change(&[0.499, 0.0, 0.0])[0]) / 0.002;
        assert!((space.pull_back(&[0.5, 0.0, 0.0], &[1.0, 0.0, 0.0])[0] - slope).abs() < 1e-6);
    }
}
