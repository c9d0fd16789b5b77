//! Softmax along an axis, and its logarithm.

use rayon::prelude::*;

use super::{Backward, Forward, Layer};
use crate::kernels::vectorised;
use crate::math::exp;

/// Softmax of `[outer][side][inner]` along the middle axis.
pub(crate) struct Softmax {
    pub(crate) logarithm: bool,
    pub(crate) side: usize,
    pub(crate) inner: usize,
}

/// Least floats of a task.
const BLOCK: usize = 1 << 12;

/// The greatest value and the sum, by lanes so that they become vector instructions.
#[inline(always)]
fn folded(values: &[f32], start: f32, with: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 16];
    let chunks = values.chunks_exact(16);
    let rest = chunks.remainder().iter().fold(start, |folded, value| with(folded, *value));
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane = with(*lane, *value));
    }
    lanes.iter().fold(rest, |folded, lane| with(folded, *lane))
}

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

impl Softmax {
    #[inline(always)]
    fn along(&self, x: &[f32], y: &mut [f32]) {
        let greatest = folded(x, f32::NEG_INFINITY, greater);
        y.iter_mut().zip(x).for_each(|(y, x)| *y = exp(x - greatest));
        let sum = folded(y, 0.0, |a, b| a + b);
        if self.logarithm {
            let level = greatest + sum.ln();
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x - level);
        } else {
            let factor = 1.0 / sum;
            y.iter_mut().for_each(|y| *y *= factor);
        }
    }

    /// The gradient, in place of the gradient by the output.
    #[inline(always)]
    fn back(&self, y: &[f32], slope: &[f32], gradient: &mut [f32], accumulate: bool) {
        let products = |y: f32, slope: f32| if self.logarithm { slope } else { y * slope };
        let mut lanes = [0.0; 16];
        let (ys, slopes) = (y.chunks_exact(16), slope.chunks_exact(16));
        let ends = ys.remainder().iter().zip(slopes.remainder());
        let rest = ends.fold(0.0, |sum, (y, slope)| sum + products(*y, *slope));
        for (y, slope) in ys.zip(slopes) {
            for (lane, (y, slope)) in lanes.iter_mut().zip(y.iter().zip(slope)) {
                *lane += products(*y, *slope);
            }
        }
        let sum = lanes.iter().fold(rest, |sum, lane| sum + lane);
        for (gradient, (y, slope)) in gradient.iter_mut().zip(y.iter().zip(slope)) {
            let part = if self.logarithm { slope - exp(*y) * sum } else { y * (slope - sum) };
            *gradient = if accumulate { *gradient + part } else { part };
        }
    }

    /// Turns `[side][inner]` into `[inner][side]`.
    fn gathered(&self, from: &[f32], to: &mut [f32]) {
        for (at, to) in to.iter_mut().enumerate() {
            *to = from[at % self.side * self.inner + at / self.side];
        }
    }
}

impl Layer for Softmax {
    fn forward(&self, pass: Forward<'_>) {
        let block = self.side * self.inner;
        let blocks = pass.output.par_chunks_exact_mut(block).zip(pass.inputs[0].par_chunks_exact(block));
        blocks.with_min_len(BLOCK.div_ceil(block)).for_each(|(output, input)| {
            if self.inner == 1 {
                return vectorised(
                    pass.set,
                    #[inline(always)]
                    || self.along(input, output),
                );
            }
            let (mut x, mut y) = (vec![0.0; block], vec![0.0; block]);
            self.gathered(input, &mut x);
            x.chunks_exact(self.side).zip(y.chunks_exact_mut(self.side)).for_each(|(x, y)| self.along(x, y));
            for (at, y) in y.iter().enumerate() {
                output[at % self.side * self.inner + at / self.side] = *y;
            }
        });
    }

    fn backward(&self, pass: Backward<'_>) {
        let block = self.side * self.inner;
        let blocks = pass.gradient.par_chunks_exact_mut(block).zip(pass.output.par_chunks_exact(block));
        let blocks = blocks.zip(pass.slope.par_chunks_exact(block)).with_min_len(BLOCK.div_ceil(block));
        blocks.for_each(|((gradient, output), slope)| {
            if self.inner == 1 {
                return vectorised(
                    pass.set,
                    #[inline(always)]
                    || self.back(output, slope, gradient, pass.accumulate),
                );
            }
            let (mut y, mut slopes, mut parts) = (vec![0.0; block], vec![0.0; block], vec![0.0; block]);
            self.gathered(output, &mut y);
            self.gathered(slope, &mut slopes);
            let rows = y.chunks_exact(self.side).zip(slopes.chunks_exact(self.side));
            rows.zip(parts.chunks_exact_mut(self.side)).for_each(|((y, slope), part)| self.back(y, slope, part, false));
            for (at, part) in parts.iter().enumerate() {
                let gradient = &mut gradient[at % self.side * self.inner + at / self.side];
                *gradient = if pass.accumulate { *gradient + part } else { *part };
            }
        });
    }

    fn keeps_output(&self) -> bool {
        true
    }

    fn kernel(&self) -> String {
        format!("{}softmax of {}", if self.logarithm { "log-" } else { "" }, self.side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::InstructionSet;
    use crate::layers::tests::{agrees_with_f64, numbers};

    #[test]
    fn both_and_their_gradients_agree_with_f64() {
        for (outer, side, inner) in [(3, 7, 1), (2, 37, 1), (2, 5, 6)] {
            for logarithm in [false, true] {
                let layer = Softmax { logarithm, side, inner };
                let elements = outer * side * inner;
                let x: Vec<f32> = numbers(2 * elements, 1).iter().map(|x| 8.0 * x).collect();
                for set in InstructionSet::available() {
                    agrees_with_f64(set, &layer, 2, std::slice::from_ref(&x), elements, 2e-6, |inputs| {
                        let x = &inputs[0];
                        let at = |index: usize| {
                            let first = index / (side * inner) * side * inner + index % inner;
                            let sum: f64 = (0..side).map(|place| (x[first + place * inner] - x[index]).exp()).sum();
                            if logarithm { -sum.ln() } else { 1.0 / sum }
                        };
                        (0..elements).map(at).collect()
                    });
                }
            }
        }
    }

    #[test]
    fn large_values_do_not_overflow_and_not_a_number_stays_one() {
        let layer = Softmax { logarithm: false, side: 2, inner: 1 };
        let run = |x: [f32; 2]| {
            let mut y = [0.0; 2];
            layer.along(&x, &mut y);
            y
        };
        assert_eq!(run([1000.0, 0.0]), [1.0, 0.0]);
        assert!(run([f32::NAN, 0.0])[1].is_nan() && run([0.0, f32::NAN])[0].is_nan());
    }
}
