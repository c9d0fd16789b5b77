//! Changes of value that leave the geometry alone: gamma, contrast and brightness, noise, clipping; and mirroring.

use super::Transformation;

/// `lower + range·vᵞ` with v the value as a fraction of the range, clipped to [0, 1].
pub struct Gamma {
    /// Exponent γ; finite and above 0.
    pub exponent: f32,
    /// Lower bound of each element.
    pub lower: Vec<f32>,
    /// Upper bound of each element.
    pub upper: Vec<f32>,
}

/// Below this fraction of the range the slope of [`Gamma`] is that at this fraction: for γ < 1 it would be infinite at 0.
const LEAST_FRACTION: f32 = 1e-3;

impl Transformation for Gamma {
    fn apply(&self, values: &[f32]) -> Vec<f32> {
        let bounds = self.lower.iter().zip(&self.upper);
        values
            .iter()
            .zip(bounds)
            .map(|(value, (lower, upper))| {
                let fraction = ((value - lower) / (upper - lower)).clamp(0.0, 1.0);
                lower + (upper - lower) * fraction.powf(self.exponent)
            })
            .collect()
    }

    fn pull_back(&self, values: &[f32], cotangent: &[f32]) -> Vec<f32> {
        let bounds = self.lower.iter().zip(&self.upper);
        values
            .iter()
            .zip(cotangent)
            .zip(bounds)
            .map(|((value, slope), (lower, upper))| {
                let fraction = (value - lower) / (upper - lower);
                if (0.0..=1.0).contains(&fraction) {
                    slope * self.exponent * fraction.max(LEAST_FRACTION).powf(self.exponent - 1.0)
                } else {
                    0.0
                }
            })
            .collect()
    }
}

/// `middle + contrast·(x − middle) + offset`.
pub struct Tone {
    /// Factor on the distance from the middle.
    pub contrast: f32,
    /// The value that the contrast leaves alone, one an element.
    pub middle: Vec<f32>,
    /// Change of brightness, one an element.
    pub offset: Vec<f32>,
}

impl Transformation for Tone {
    fn apply(&self, values: &[f32]) -> Vec<f32> {
        let own = self.middle.iter().zip(&self.offset);
        values
            .iter()
            .zip(own)
            .map(|(value, (middle, offset))| middle + self.contrast * (value - middle) + offset)
            .collect()
    }

    fn pull_back(&self, _: &[f32], cotangent: &[f32]) -> Vec<f32> {
        cotangent.iter().map(|slope| self.contrast * slope).collect()
    }
}

/// The value nearest to zero that the bounds allow: what scaling shrinks towards and what lies around a sample. It is
/// black in an image, the zero line of a signal, water in Hounsfield units.
pub fn origin(domain: &nocebo_core::Domain) -> Vec<f32> {
    domain.lower().iter().zip(domain.upper()).map(|(lower, upper)| 0.0_f32.clamp(*lower, *upper)).collect()
}

/// Adds the same values to every sample that passes: one draw of noise, or a fraction of another sample.
pub struct Add(pub Vec<f32>);

impl Transformation for Add {
    fn apply(&self, values: &[f32]) -> Vec<f32> {
        values.iter().zip(&self.0).map(|(value, added)| value + added).collect()
    }

    fn pull_back(&self, _: &[f32], cotangent: &[f32]) -> Vec<f32> {
        cotangent.to_vec()
    }
}

/// Clips to the bounds; elements that are clipped pass no gradient.
pub struct Clip {
    /// Lower bound of each element.
    pub lower: Vec<f32>,
    /// Upper bound of each element.
    pub upper: Vec<f32>,
}

impl Transformation for Clip {
    fn apply(&self, values: &[f32]) -> Vec<f32> {
        let bounds = self.lower.iter().zip(&self.upper);
        values.iter().zip(bounds).map(|(value, (lower, upper))| value.clamp(*lower, *upper)).collect()
    }

    fn pull_back(&self, values: &[f32], cotangent: &[f32]) -> Vec<f32> {
        let bounds = self.lower.iter().zip(&self.upper);
        values
            .iter()
            .zip(cotangent)
            .zip(bounds)
            .map(|((value, slope), (lower, upper))| if (*lower..=*upper).contains(value) { *slope } else { 0.0 })
            .collect()
    }
}

/// Mirrors every channel along one axis in space or time.
pub struct Flip {
    /// Sides in space or time.
    pub sides: Vec<usize>,
    /// Axis to mirror.
    pub axis: usize,
}

impl Transformation for Flip {
    fn apply(&self, values: &[f32]) -> Vec<f32> {
        let stride: usize = self.sides[self.axis + 1..].iter().product();
        let side = self.sides[self.axis];
        (0..values.len())
            .map(|at| {
                let place = (at / stride) % side;
                values[at - place * stride + (side - 1 - place) * stride]
            })
            .collect()
    }

    fn pull_back(&self, _: &[f32], cotangent: &[f32]) -> Vec<f32> {
        self.apply(cotangent)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::agrees_with_differences;
    use super::*;

    #[test]
    fn hand_computed_values() {
        let gamma = Gamma { exponent: 0.5, lower: vec![-100.0; 3], upper: vec![300.0; 3] };
        assert_eq!(gamma.apply(&[0.0, -100.0, 500.0]), [100.0, -100.0, 300.0]);
        let tone = Tone { contrast: 2.0, middle: vec![10.0; 2], offset: vec![1.0, 3.0] };
        assert_eq!(tone.apply(&[12.0, 8.0]), [15.0, 9.0]);
        let flip = Flip { sides: vec![2, 3], axis: 1 };
        assert_eq!(flip.apply(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
        let flip = Flip { sides: vec![2, 3], axis: 0 };
        assert_eq!(flip.apply(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn derivatives_agree_with_central_differences() {
        let values = [20.0, -60.0, 130.0, 270.0];
        let (lower, upper) = (vec![-100.0; 4], vec![300.0; 4]);
        for exponent in [0.7, 1.0, 1.6] {
            let gamma = Gamma { exponent, lower: lower.clone(), upper: upper.clone() };
            agrees_with_differences(&gamma, &values, 0.5, 1e-2);
        }
        agrees_with_differences(
            &Tone { contrast: 0.8, middle: vec![5.0; 4], offset: vec![1.0; 4] },
            &values,
            0.5,
            1e-3,
        );
        agrees_with_differences(&Add(vec![3.0, -2.0, 0.5, 0.0]), &values, 0.5, 1e-3);
        agrees_with_differences(&Flip { sides: vec![4], axis: 0 }, &values, 0.5, 1e-3);
        let clip = Clip { lower: vec![-50.0; 4], upper: vec![200.0; 4] };
        assert_eq!(clip.apply(&values), [20.0, -50.0, 130.0, 200.0]);
        agrees_with_differences(&clip, &values, 0.5, 1e-3);
    }

    #[test]
    fn the_slope_of_gamma_is_finite_at_black() {
        let gamma = Gamma { exponent: 0.5, lower: vec![0.0], upper: vec![255.0] };
        let slope = gamma.pull_back(&[0.0], &[1.0])[0];
        assert!(slope.is_finite() && slope > 10.0, "{slope}");
    }
}
