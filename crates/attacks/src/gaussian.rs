//! Standard normal numbers.

use rand::{Rng, RngExt};

/// One standard normal number (Box & Muller 1958).
pub(crate) fn gaussian(generator: &mut impl Rng) -> f64 {
    let (a, b): (f64, f64) = (generator.random(), generator.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::Seed;

    #[test]
    fn has_mean_zero_and_variance_one() {
        let mut generator = Seed(4).for_sample(0);
        let drawn: Vec<f64> = (0..20_000).map(|_| gaussian(&mut generator)).collect();
        let mean = drawn.iter().sum::<f64>() / 20_000.0;
        let variance = drawn.iter().map(|value| value * value).sum::<f64>() / 20_000.0;
        let beyond_two = drawn.iter().filter(|value| value.abs() > 2.0).count() as f64 / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!((beyond_two - 0.0455).abs() < 0.006, "{beyond_two}");
    }
}
