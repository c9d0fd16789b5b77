//! One sample in the unit of the range of its bounds.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use nocebo_core::{Domain, Norm};

/// A clean sample and its bounds, with changes measured in the range of the bounds.
///
/// Papers state step sizes, thresholds and constants for data in [0, 1]. On changes divided by the range they hold for
/// any unit: `change = (point − clean) / range`.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    domain: &'a Domain,
    clean: &'a [f32],
    range: f64,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(domain: &'a Domain, clean: &'a [f32]) -> Self {
        Self { domain, clean, range: f64::from(domain.range()) }
    }

    pub(crate) fn elements(&self) -> usize {
        self.clean.len()
    }

    pub(crate) fn clean(&self) -> &'a [f32] {
        self.clean
    }

    /// How far an element may go down and up: at most 0 and at least 0, both 0 outside the region.
    pub(crate) fn room(&self, element: usize) -> (f64, f64) {
        if self.domain.is_mutable(element) {
            let value = f64::from(self.clean[element]);
            let (lower, upper) = (f64::from(self.domain.lower()[element]), f64::from(self.domain.upper()[element]));
            ((lower - value) / self.range, (upper - value) / self.range)
        } else {
            (0.0, 0.0)
        }
    }

    /// Moves each change into its room.
    pub(crate) fn clip(&self, change: &mut [f64]) {
        for (element, change) in change.iter_mut().enumerate() {
            let (low, high) = self.room(element);
            *change = change.clamp(low, high);
        }
    }

    /// The point at a change, inside the bounds and clean outside the region.
    pub(crate) fn point(&self, change: &[f64]) -> Vec<f32> {
        let (lower, upper) = (self.domain.lower(), self.domain.upper());
        change
            .iter()
            .enumerate()
            .map(|(element, change)| {
                let clean = self.clean[element];
                if *change == 0.0 || !self.domain.is_mutable(element) {
                    return clean;
                }
                let moved = (f64::from(clean) + self.range * change) as f32;
                moved.clamp(lower[element], upper[element])
            })
            .collect()
    }

    /// The nearest point of the ball ∩ bounds with this radius, in the unit of the range (L0: number of elements).
    pub(crate) fn project(&self, norm: Norm, radius: f64, change: &[f64]) -> Vec<f32> {
        let unit = if norm == Norm::L0 { 1.0 } else { self.range };
        let moved = change.iter().zip(self.clean);
        let mut point: Vec<f32> =
            moved.map(|(change, clean)| (f64::from(*clean) + self.range * change) as f32).collect();
        norm.project((radius * unit) as f32, self.domain, self.clean, &mut point);
        point
    }

    /// Rounds a point to values that can be stored; what was not changed stays as it is.
    pub(crate) fn store(&self, point: &mut [f32]) {
        let changed: Vec<bool> = point.iter().zip(self.clean).map(|(point, clean)| point != clean).collect();
        self.domain.store(point);
        for (element, _) in changed.iter().enumerate().filter(|(_, changed)| !**changed) {
            point[element] = self.clean[element];
        }
    }

    /// The change at a point.
    pub(crate) fn change(&self, point: &[f32]) -> Vec<f64> {
        point
            .iter()
            .zip(self.clean)
            .map(|(point, clean)| (f64::from(*point) - f64::from(*clean)) / self.range)
            .collect()
    }

    /// The derivative by the change, from the derivative by the point; 0 outside the region.
    pub(crate) fn slopes(&self, gradient: &[f32]) -> Vec<f64> {
        gradient
            .iter()
            .enumerate()
            .map(|(element, slope)| if self.domain.is_mutable(element) { f64::from(*slope) * self.range } else { 0.0 })
            .collect()
    }

    /// A random direction of unit length in L2, 0 outside the region.
    pub(crate) fn random_direction(&self, generator: &mut ChaCha8Rng) -> Vec<f64> {
        let mut direction: Vec<f64> = (0..self.elements()).map(|_| generator.random_range(-1.0..1.0)).collect();
        for (element, part) in direction.iter_mut().enumerate() {
            if !self.domain.is_mutable(element) {
                *part = 0.0;
            }
        }
        let length = size(Norm::L2, &direction).max(f64::MIN_POSITIVE);
        for part in &mut direction {
            *part /= length;
        }
        direction
    }

    /// The size of the greatest change that the bounds and the region leave.
    pub(crate) fn farthest(&self, norm: Norm) -> f64 {
        let most: Vec<f64> = (0..self.elements())
            .map(|element| {
                let (low, high) = self.room(element);
                high.max(-low)
            })
            .collect();
        size(norm, &most)
    }
}

/// The norm of a change.
pub(crate) fn size(norm: Norm, change: &[f64]) -> f64 {
    let magnitudes = change.iter().map(|part| part.abs());
    match norm {
        Norm::L0 => magnitudes.filter(|part| *part > 0.0).count() as f64,
        Norm::L1 => magnitudes.sum(),
        Norm::L2 => magnitudes.map(|part| part * part).sum::<f64>().sqrt(),
        Norm::Linf => magnitudes.fold(0.0, f64::max),
    }
}

/// The dual norm of a slope: how fast a linear function with it grows for a unit step. The greatest magnitude for L0.
pub(crate) fn dual(norm: Norm, slopes: &[f64]) -> f64 {
    match norm {
        Norm::Linf => size(Norm::L1, slopes),
        Norm::L2 => size(Norm::L2, slopes),
        Norm::L0 | Norm::L1 => size(Norm::Linf, slopes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_fractions_of_the_range() {
        let domain = Domain::grey_levels(&[3], 200.0).unwrap().with_region(vec![true, true, false]).unwrap();
        let clean = [50.0, 100.0, 100.0];
        let frame = Frame::new(&domain, &clean);
        assert_eq!((frame.room(0), frame.room(2)), ((-0.25, 0.75), (0.0, 0.0)));
        assert_eq!(frame.point(&[0.5, -9.0, 0.5]), [150.0, 0.0, 100.0]);
        assert_eq!(frame.change(&[150.0, 0.0, 100.0]), [0.5, -0.5, 0.0]);
        assert_eq!(frame.slopes(&[1.0, -2.0, 3.0]), [200.0, -400.0, 0.0]);
        assert_eq!([Norm::L0, Norm::L1, Norm::Linf].map(|norm| frame.farthest(norm)), [2.0, 1.25, 0.75]);
    }
}
