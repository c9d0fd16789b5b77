//! How a step size falls.

use std::f64::consts::PI;

/// From `first` at step 0 to `last` at `steps`, along half a cosine.
pub(crate) fn cosine(step: usize, steps: usize, first: f64, last: f64) -> f64 {
    last + (first - last) * 0.5 * (1.0 + (PI * step as f64 / steps as f64).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_halfway() {
        assert_eq!(cosine(0, 10, 1.0, 0.2), 1.0);
        assert!((cosine(5, 10, 1.0, 0.2) - 0.6).abs() < 1e-12);
        assert!((cosine(10, 10, 1.0, 0.2) - 0.2).abs() < 1e-12);
    }
}
