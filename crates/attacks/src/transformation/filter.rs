//! Gaussian smoothing along every axis in space or time.

use nocebo_core::{Error, Samples};

use super::Transformation;

/// A symmetric kernel applied along each axis of every channel, with zeros beyond the edges. Its own transpose.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    weights: Vec<f32>,
}

impl Kernel {
    /// A Gaussian of `size` taps, whose last tap lies `deviations` standard deviations from the centre; sums to 1.
    ///
    /// An even size is taken as the next odd one.
    pub fn gaussian(size: usize, deviations: f64) -> Self {
        let radius = size / 2;
        let at = |tap: usize| deviations * (tap as f64 - radius as f64) / (radius as f64).max(1.0);
        let raw: Vec<f64> = (0..=2 * radius).map(|tap| (-0.5 * at(tap) * at(tap)).exp()).collect();
        let sum: f64 = raw.iter().sum();
        Self { weights: raw.into_iter().map(|weight| (weight / sum) as f32).collect() }
    }

    /// The kernel of translation-invariant attacks: `size` taps over three standard deviations either way.
    ///
    /// # Errors
    ///
    /// When the size is not odd, or above 999.
    pub fn published(size: usize) -> Result<Self, Error> {
        if size % 2 == 1 && size < 1000 {
            Ok(Self::gaussian(size, 3.0))
        } else {
            Err(Error::invalid("kernel_size", "odd, 1 to 999", size))
        }
    }

    /// A Gaussian with this standard deviation in elements, cut at three of them; no smoothing at 0.
    pub fn of_deviation(sigma: f64) -> Self {
        let radius = (3.0 * sigma).ceil().clamp(0.0, 1000.0) as usize;
        if radius == 0 {
            return Self { weights: vec![1.0] };
        }
        Self::gaussian(2 * radius + 1, radius as f64 / sigma)
    }

    /// [`Kernel::smooth`] for each row of a batch.
    pub fn smooth_rows(&self, batch: &mut Samples) {
        let sides = batch.shape()[1..].to_vec();
        for row in batch.rows_mut() {
            row.copy_from_slice(&self.smooth(&sides, row));
        }
    }

    /// Smooths the channels of a sample with these sides.
    ///
    /// # Panics
    ///
    /// When `values` does not hold whole channels.
    pub fn smooth(&self, sides: &[usize], values: &[f32]) -> Vec<f32> {
        let plane: usize = sides.iter().product();
        assert!(values.len().is_multiple_of(plane));
        let mut smoothed = values.to_vec();
        if self.weights.len() == 1 {
            return smoothed;
        }
        let radius = self.weights.len() / 2;
        for axis in 0..sides.len() {
            let stride: usize = sides[axis + 1..].iter().product();
            let source = smoothed.clone();
            for (at, out) in smoothed.iter_mut().enumerate() {
                let place = (at / stride) % sides[axis];
                let first = place.saturating_sub(radius);
                let last = (place + radius).min(sides[axis] - 1);
                let sum: f64 = (first..=last)
                    .map(|other| {
                        f64::from(self.weights[other + radius - place])
                            * f64::from(source[at - place * stride + other * stride])
                    })
                    .sum();
                *out = sum as f32;
            }
        }
        smoothed
    }
}

/// Gaussian blur. At the edges the weights of what exists are scaled up to sum to 1, so a constant stays one.
pub struct Blur {
    kernel: Kernel,
    sides: Vec<usize>,
    share: Vec<f32>,
}

impl Blur {
    /// A blur of `sigma` elements over samples with these sides.
    pub fn new(sides: &[usize], sigma: f64) -> Self {
        let kernel = Kernel::of_deviation(sigma);
        let plane: usize = sides.iter().product();
        let share = kernel.smooth(sides, &vec![1.0; plane]);
        Self { kernel, sides: sides.to_vec(), share }
    }

    fn divided(&self, values: &[f32]) -> Vec<f32> {
        values.iter().zip(self.share.iter().cycle()).map(|(value, share)| value / share).collect()
    }
}

impl Transformation for Blur {
    fn apply(&self, values: &[f32]) -> Vec<f32> {
        self.divided(&self.kernel.smooth(&self.sides, values))
    }

    fn pull_back(&self, _: &[f32], cotangent: &[f32]) -> Vec<f32> {
        self.kernel.smooth(&self.sides, &self.divided(cotangent))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::agrees_with_differences;
    use super::*;

    #[test]
    fn the_kernel_is_the_published_one() {
        // 15 taps over ±3 standard deviations: neighbouring taps differ by 3/7 of one.
        let kernel = Kernel::gaussian(15, 3.0);
        assert_eq!(kernel.weights.len(), 15);
        assert!((kernel.weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        let ratio = f64::from(kernel.weights[8]) / f64::from(kernel.weights[7]);
        assert!((ratio - (-0.5 * (3.0_f64 / 7.0).powi(2)).exp()).abs() < 1e-6, "{ratio}");
        assert_eq!(Kernel::of_deviation(0.0).smooth(&[3], &[1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn smoothing_is_separable_and_zero_beyond_the_edge() {
        let kernel = Kernel { weights: vec![0.25, 0.5, 0.25] };
        assert_eq!(kernel.smooth(&[3], &[4.0, 0.0, 8.0]), [2.0, 3.0, 4.0]);
        let impulse = [0.0, 0.0, 0.0, 0.0, 16.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(kernel.smooth(&[3, 3], &impulse), [1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0]);
    }

    #[test]
    fn a_blur_keeps_a_constant_and_has_its_derivative() {
        for sides in [&[9][..], &[4, 5], &[2, 3, 4]] {
            let plane: usize = sides.iter().product();
            let blur = Blur::new(sides, 0.8);
            assert!(blur.apply(&vec![-1000.0; 2 * plane]).iter().all(|value| (value + 1000.0).abs() < 1e-2));
            let values: Vec<f32> = (0..2 * plane).map(|at| ((at * 7) % 5) as f32).collect();
            agrees_with_differences(&blur, &values, 0.5, 1e-4);
        }
    }
}
