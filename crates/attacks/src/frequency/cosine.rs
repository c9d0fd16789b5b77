//! The discrete cosine transform (DCT-II, orthonormal) of signals, images and volumes.
//!
//! ```text
//! Xₖ = wₖ·Σᵢ xᵢ·cos(π·k·(2i + 1)/2n),  w₀ = √(1/n), wₖ = √(2/n)
//! ```
//!
//! Axis by axis, in f64. The transform is orthonormal: its inverse is its transpose, and it maps a gradient by the values
//! to the gradient by the coefficients.

use std::f64::consts::PI;

/// The cosines of one axis of length n.
struct Axis {
    /// cos(π·m/2n) for m below 4n.
    table: Vec<f64>,
    length: usize,
}

impl Axis {
    fn new(length: usize) -> Self {
        let step = PI / (2 * length) as f64;
        Self { table: (0..4 * length).map(|m| (step * m as f64).cos()).collect(), length }
    }

    /// cos(π·k·(2i + 1)/2n) at the places i = 0, 1, …
    fn cosines(&self, frequency: usize) -> impl Iterator<Item = f64> {
        let period = 4 * self.length;
        (0..self.length).scan(frequency, move |at, _| {
            let cosine = self.table[*at % period];
            *at = (*at + 2 * frequency) % period;
            Some(cosine)
        })
    }

    /// wₖ.
    fn weight(&self, frequency: usize) -> f64 {
        (if frequency == 0 { 1.0 } else { 2.0 } / self.length as f64).sqrt()
    }

    /// The first `coefficients.len()` coefficients of a line.
    fn forward(&self, line: &[f64], coefficients: &mut [f64]) {
        for (frequency, coefficient) in coefficients.iter_mut().enumerate() {
            let sum: f64 = line.iter().zip(self.cosines(frequency)).map(|(value, cosine)| value * cosine).sum();
            *coefficient = self.weight(frequency) * sum;
        }
    }

    /// The line with these first coefficients, the others 0.
    fn inverse(&self, coefficients: &[f64], line: &mut [f64]) {
        line.fill(0.0);
        for (frequency, coefficient) in coefficients.iter().enumerate() {
            let scaled = self.weight(frequency) * coefficient;
            for (value, cosine) in line.iter_mut().zip(self.cosines(frequency)) {
                *value += scaled * cosine;
            }
        }
    }
}

/// Replaces `values` of this shape by their coefficients.
pub(crate) fn transform(values: &mut [f64], shape: &[usize]) {
    let mut coefficients = Vec::new();
    along_each_axis(values, shape, |axis, _, line| {
        coefficients.resize(line.len(), 0.0);
        axis.forward(line, &mut coefficients);
        line.copy_from_slice(&coefficients);
    });
}

/// Replaces coefficients of this shape by the values they stand for.
pub(crate) fn invert(coefficients: &mut [f64], shape: &[usize]) {
    let mut values = Vec::new();
    along_each_axis(coefficients, shape, |axis, _, line| {
        values.resize(line.len(), 0.0);
        axis.inverse(line, &mut values);
        line.copy_from_slice(&values);
    });
}

/// Removes every coefficient but the first `kept` of each axis: the nearest values of low frequency.
pub(crate) fn low_pass(values: &mut [f64], shape: &[usize], kept: &[usize]) {
    let mut coefficients = Vec::new();
    along_each_axis(values, shape, |axis, direction, line| {
        coefficients.resize(kept[direction], 0.0);
        axis.forward(line, &mut coefficients);
        axis.inverse(&coefficients, line);
    });
}

/// Applies `map` to every line of every axis, one axis after another; it gets the cosines and the number of the axis.
fn along_each_axis(values: &mut [f64], shape: &[usize], mut map: impl FnMut(&Axis, usize, &mut [f64])) {
    for (direction, &length) in shape.iter().enumerate() {
        let axis = Axis::new(length);
        let stride: usize = shape[direction + 1..].iter().product();
        let mut line = vec![0.0; length];
        for outer in 0..values.len() / (length * stride) {
            for inner in 0..stride {
                let start = outer * length * stride + inner;
                for (place, value) in line.iter_mut().enumerate() {
                    *value = values[start + place * stride];
                }
                map(&axis, direction, &mut line);
                for (place, value) in line.iter().enumerate() {
                    values[start + place * stride] = *value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize) -> Vec<f64> {
        (0..count).map(|at| ((at * 37 + 11) % 29) as f64 - 14.0).collect()
    }

    #[test]
    fn coefficients_by_hand() {
        let mut pair = [3.0, 1.0];
        transform(&mut pair, &[2]);
        // (3 + 1)/√2 and (3 − 1)·cos(π/4).
        assert!((pair[0] - 8.0_f64.sqrt()).abs() < 1e-12 && (pair[1] - 2.0_f64.sqrt()).abs() < 1e-12);
        let mut flat = [5.0; 12];
        transform(&mut flat, &[3, 4]);
        assert!((flat[0] - 5.0 * 12.0_f64.sqrt()).abs() < 1e-12 && flat[1..].iter().all(|part| part.abs() < 1e-12));
    }

    #[test]
    fn is_orthonormal_in_one_to_three_dimensions() {
        for shape in [vec![30], vec![5, 6], vec![2, 3, 5]] {
            let original = values(30);
            let mut moved = original.clone();
            transform(&mut moved, &shape);
            let square = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
            assert!((square(&moved) - square(&original)).abs() < 1e-9, "{shape:?}");
            invert(&mut moved, &shape);
            assert!(moved.iter().zip(&original).all(|(a, b)| (a - b).abs() < 1e-12), "{shape:?}");
        }
    }

    #[test]
    fn a_low_pass_keeps_the_low_coefficients_alone() {
        let (shape, kept) = ([5, 6], [2, 3]);
        let original = values(30);
        let (mut filtered, mut expected) = (original.clone(), original);
        low_pass(&mut filtered, &shape, &kept);
        transform(&mut filtered, &shape);
        transform(&mut expected, &shape);
        for (at, (found, expected)) in filtered.iter().zip(expected).enumerate() {
            let expected = if at / 6 < 2 && at % 6 < 3 { expected } else { 0.0 };
            assert!((found - expected).abs() < 1e-12, "{at}");
        }
    }
}
