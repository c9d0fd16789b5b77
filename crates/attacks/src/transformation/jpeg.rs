//! The loss of JPEG: quantised block cosine coefficients.
//!
//! ```text
//! v = 255·(x − lower)/(upper − lower) − 128      8 × 8 blocks, the edge repeated up to a multiple of 8
//! X = C·v·Cᵀ,  X' = q·round(X/q),  v' = Cᵀ·X'·C   q the luminance table of Annex K, scaled by the quality
//! ```
//!
//! Every channel is treated as luminance, since the channels of a medical image are not colours in general. Entropy
//! coding loses nothing and is left out. Rounding has no useful derivative: the gradient passes straight through it
//! (BPDA, Athalye, Carlini & Wagner 2018, arXiv:1802.00420), so it passes through the whole channel unchanged.

use super::Transformation;

/// Luminance quantisation table of ITU-T T.81, Annex K, row by row.
const LUMINANCE: [f64; 64] = [
    16.0, 11.0, 10.0, 16.0, 24.0, 40.0, 51.0, 61.0, 12.0, 12.0, 14.0, 19.0, 26.0, 58.0, 60.0, 55.0, 14.0, 13.0, 16.0,
    24.0, 40.0, 57.0, 69.0, 56.0, 14.0, 17.0, 22.0, 29.0, 51.0, 87.0, 80.0, 62.0, 18.0, 22.0, 37.0, 56.0, 68.0, 109.0,
    103.0, 77.0, 24.0, 35.0, 55.0, 64.0, 81.0, 104.0, 113.0, 92.0, 49.0, 64.0, 78.0, 87.0, 103.0, 121.0, 120.0, 101.0,
    72.0, 92.0, 95.0, 98.0, 112.0, 100.0, 103.0, 99.0,
];

const SIDE: usize = 8;

/// JPEG compression and decompression of an image.
pub struct Jpeg {
    height: usize,
    width: usize,
    lower: Vec<f32>,
    upper: Vec<f32>,
    table: [f64; 64],
}

impl Jpeg {
    /// Compression at a quality from 1 to 100 (as the Independent JPEG Group scales the table) of images with these
    /// sides and bounds.
    pub fn new(height: usize, width: usize, lower: &[f32], upper: &[f32], quality: f64) -> Self {
        let quality = quality.clamp(1.0, 100.0);
        let percent = if quality < 50.0 { 5000.0 / quality } else { 200.0 - 2.0 * quality };
        let table = LUMINANCE.map(|entry| ((entry * percent + 50.0) / 100.0).floor().clamp(1.0, 255.0));
        Self { height, width, lower: lower.to_vec(), upper: upper.to_vec(), table }
    }
}

impl Transformation for Jpeg {
    fn apply(&self, values: &[f32]) -> Vec<f32> {
        let plane = self.height * self.width;
        let cosines = cosines();
        let mut decoded = values.to_vec();
        for channel in 0..values.len() / plane {
            for top in (0..self.height).step_by(SIDE) {
                for left in (0..self.width).step_by(SIDE) {
                    let at = |place: usize| {
                        let row = (top + place / SIDE).min(self.height - 1);
                        let column = (left + place % SIDE).min(self.width - 1);
                        channel * plane + row * self.width + column
                    };
                    let mut block = [0.0; 64];
                    for (place, value) in block.iter_mut().enumerate() {
                        let (lower, upper) = (f64::from(self.lower[at(place)]), f64::from(self.upper[at(place)]));
                        *value = 255.0 * (f64::from(values[at(place)]) - lower) / (upper - lower) - 128.0;
                    }
                    let mut coefficients = two_sided(&cosines, &block);
                    for (coefficient, step) in coefficients.iter_mut().zip(&self.table) {
                        *coefficient = step * (*coefficient / step).round();
                    }
                    let block = two_sided(&transposed(&cosines), &coefficients);
                    for (place, value) in block.iter().enumerate() {
                        if top + place / SIDE < self.height && left + place % SIDE < self.width {
                            let (lower, upper) = (f64::from(self.lower[at(place)]), f64::from(self.upper[at(place)]));
                            let fraction = ((value + 128.0) / 255.0).clamp(0.0, 1.0);
                            decoded[at(place)] = (lower + (upper - lower) * fraction) as f32;
                        }
                    }
                }
            }
        }
        decoded
    }

    fn pull_back(&self, _: &[f32], cotangent: &[f32]) -> Vec<f32> {
        cotangent.to_vec()
    }
}

/// The orthonormal cosine transform of 8 values, one row a frequency.
fn cosines() -> [f64; 64] {
    let mut matrix = [0.0; 64];
    for (at, entry) in matrix.iter_mut().enumerate() {
        let (frequency, place) = ((at / SIDE) as f64, (at % SIDE) as f64);
        let scale = if at < SIDE { (1.0 / 8.0_f64).sqrt() } else { 0.5 };
        *entry = scale * ((2.0 * place + 1.0) * frequency * std::f64::consts::PI / 16.0).cos();
    }
    matrix
}

fn transposed(matrix: &[f64; 64]) -> [f64; 64] {
    std::array::from_fn(|at| matrix[at % SIDE * SIDE + at / SIDE])
}

/// `M·B·Mᵀ`.
fn two_sided(matrix: &[f64; 64], block: &[f64; 64]) -> [f64; 64] {
    let product = |a: &[f64; 64], b: &[f64; 64]| -> [f64; 64] {
        std::array::from_fn(|at| (0..SIDE).map(|k| a[at / SIDE * SIDE + k] * b[k * SIDE + at % SIDE]).sum())
    };
    product(&product(matrix, block), &transposed(matrix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg(side: usize, quality: f64) -> Jpeg {
        Jpeg::new(side, side, &vec![-1024.0; side * side], &vec![3071.0; side * side], quality)
    }

    #[test]
    fn the_cosine_transform_is_orthonormal() {
        let mut block = [0.0; 64];
        block[9] = 3.0;
        block[63] = -2.0;
        let back = two_sided(&transposed(&cosines()), &two_sided(&cosines(), &block));
        assert!(back.iter().zip(&block).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn a_constant_is_rounded_to_the_step_of_the_mean() {
        // Quality 50 is the table itself: the mean coefficient is 8·v in steps of 16, so v moves in steps of 2 of 255.
        let step = 4095.0 / 255.0;
        let image = vec![-1024.0 + 40.7 * step; 121];
        for value in jpeg(11, 50.0).apply(&image) {
            assert!((value - (-1024.0 + 40.0 * step)).abs() < 0.01, "{value}");
        }
    }

    #[test]
    fn better_quality_loses_less() {
        let image: Vec<f32> = (0..144).map(|at| ((at * 97) % 1500) as f32 - 300.0).collect();
        let loss = |quality: f64| {
            let decoded = jpeg(12, quality).apply(&image);
            image.iter().zip(&decoded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let losses = [loss(100.0), loss(75.0), loss(10.0)];
        assert!(losses[0] < 60.0 && losses[0] < losses[1] && losses[1] < losses[2], "{losses:?}");
        assert!(jpeg(12, 10.0).apply(&image).iter().all(|value| (-1024.0..=3071.0).contains(value)));
    }
}
