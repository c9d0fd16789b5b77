//! Displacement fields: how far they go, how rough they are, and whether they fold.
//!
//! A flow is `[axis][element]`, in elements: element e of a moved sample is read `flow[..][e]` away from its own place.

use nocebo_core::Error;

/// A bound on displacements, in elements or, with a spacing, in its unit.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    greatest: f32,
    spacing: Vec<f32>,
}

impl Bound {
    /// Checks `greatest_displacement` and `spacing` (empty for elements).
    pub(super) fn check(greatest: f32, spacing: &[f32]) -> Result<Self, Error> {
        if !(greatest.is_finite() && greatest > 0.0) {
            return Err(Error::invalid("greatest_displacement", "finite and above 0", greatest));
        }
        if spacing.iter().any(|side| !(side.is_finite() && *side > 0.0)) {
            return Err(Error::invalid("spacing", "finite numbers above 0", format!("{spacing:?}")));
        }
        Ok(Self { greatest, spacing: spacing.to_vec() })
    }

    /// Checks that there is one spacing an axis, or none.
    pub(super) fn check_axes(&self, axes: usize) -> Result<(), Error> {
        if self.spacing.is_empty() || self.spacing.len() == axes {
            Ok(())
        } else {
            Err(Error::mismatch("numbers in `spacing`", format!("{axes}, one an axis, or none"), self.spacing.len()))
        }
    }

    /// The greatest displacement along one axis, in elements.
    pub(super) fn along(&self, axis: usize) -> f32 {
        self.greatest / self.spacing.get(axis).copied().unwrap_or(1.0)
    }

    /// The displacement of one element as a fraction of the bound.
    pub(super) fn fraction(&self, flow: &[Vec<f32>], element: usize) -> f32 {
        let parts = flow.iter().enumerate().map(|(axis, row)| f64::from(row[element] / self.along(axis)).powi(2));
        parts.sum::<f64>().sqrt() as f32
    }

    /// Shortens the displacements that go beyond the bound.
    pub(super) fn shorten(&self, flow: &mut [Vec<f32>]) {
        for element in 0..flow.first().map_or(0, Vec::len) {
            let fraction = self.fraction(flow, element);
            if fraction > 1.0 {
                for row in flow.iter_mut() {
                    row[element] /= fraction;
                }
            }
        }
    }
}

/// The least determinant of the Jacobian of `q ↦ q + flow(q)` over all corners of all cells. At or below 0 the flow
/// folds: two places are read as one, in reversed order.
///
/// In one and two dimensions linear interpolation is one-to-one where all these are positive.
///
/// # Panics
///
/// When there is not one row an axis and one number an element.
pub fn least_jacobian(sides: &[usize], flow: &[Vec<f32>]) -> f32 {
    let axes = sides.len();
    let plane: usize = sides.iter().product();
    assert!(flow.len() == axes && flow.iter().all(|row| row.len() == plane));
    let strides: Vec<usize> = (0..axes).map(|axis| sides[axis + 1..].iter().product()).collect();
    let mut least = f32::INFINITY;
    for element in 0..plane {
        // One difference forwards or backwards along each axis: the corner of one of the cells that meet here.
        for corner in 0..1_usize << axes {
            let mut matrix = [[0.0_f32; 3]; 3];
            for (axis, row) in matrix.iter_mut().enumerate() {
                row[axis] = 1.0;
            }
            let mut inside = true;
            for axis in 0..axes {
                let place = element / strides[axis] % sides[axis];
                let up = corner >> axis & 1 == 1;
                if sides[axis] == 1 {
                    continue;
                }
                inside &= if up { place + 1 < sides[axis] } else { place > 0 };
                if !inside {
                    break;
                }
                let other = if up { element + strides[axis] } else { element - strides[axis] };
                let sign = if up { 1.0 } else { -1.0 };
                for (row, moves) in matrix.iter_mut().zip(flow) {
                    row[axis] += sign * (moves[other] - moves[element]);
                }
            }
            if inside {
                least = least.min(determinant(&matrix));
            }
        }
    }
    least
}

fn determinant(m: &[[f32; 3]; 3]) -> f32 {
    m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
}

/// Keeps the square root of the roughness smooth where neighbours move alike.
const TINY: f64 = 1e-8;

/// `Σ_p Σ_{q beside p} ‖flow(p) − flow(q)‖₂` and its derivative, `[axis][element]`.
pub(super) fn roughness(sides: &[usize], flow: &[Vec<f32>]) -> (f64, Vec<Vec<f32>>) {
    let plane: usize = sides.iter().product();
    let mut slopes = vec![vec![0.0; plane]; flow.len()];
    let mut sum = 0.0;
    for axis in 0..sides.len() {
        let stride: usize = sides[axis + 1..].iter().product();
        for element in (0..plane).filter(|element| element / stride % sides[axis] + 1 < sides[axis]) {
            let other = element + stride;
            let squared: f64 = flow.iter().map(|row| f64::from(row[element] - row[other]).powi(2)).sum();
            let length = (squared + TINY).sqrt();
            // Each pair is met from both of its ends.
            sum += 2.0 * length;
            for (slopes, row) in slopes.iter_mut().zip(flow) {
                let slope = (2.0 * f64::from(row[element] - row[other]) / length) as f32;
                slopes[element] += slope;
                slopes[other] -= slope;
            }
        }
    }
    (sum, slopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fold_has_a_negative_jacobian() {
        let still = vec![vec![0.0; 4]];
        assert_eq!(least_jacobian(&[4], &still), 1.0);
        // Element 1 reads at 2.5, element 2 at 2: order is lost between them.
        assert_eq!(least_jacobian(&[4], &[vec![0.0, 1.5, 0.0, 0.0]]), -0.5);
        // Along an axis with one element there is nothing to fold.
        assert_eq!(least_jacobian(&[1, 2], &[vec![5.0, 5.0], vec![0.0, 0.25]]), 1.25);
    }

    #[test]
    fn linear_maps_have_their_determinant_everywhere() {
        // q ↦ A·q with A = [[1.5, 0.2], [−0.4, 0.8]]: 1.5·0.8 + 0.2·0.4 = 1.28.
        let mut flow = vec![Vec::new(); 2];
        for (row, column) in (0..3).flat_map(|row| (0..3).map(move |column| (row as f32, column as f32))) {
            flow[0].push(0.5 * row + 0.2 * column);
            flow[1].push(-0.4 * row - 0.2 * column);
        }
        assert!((least_jacobian(&[3, 3], &flow) - 1.28).abs() < 1e-5);
        let volume: Vec<Vec<f32>> =
            (0..3).map(|axis| (0..8).map(|at| if axis == 2 { 0.5 * (at % 2) as f32 } else { 0.0 }).collect()).collect();
        assert!((least_jacobian(&[2, 2, 2], &volume) - 1.5).abs() < 1e-6);
    }

    #[test]
    fn roughness_by_hand_and_by_differences() {
        let flow = vec![vec![0.0, 3.0, 3.0], vec![0.0, 4.0, 4.0]];
        let (sum, _) = roughness(&[1, 3], &flow);
        assert!((sum - 10.0).abs() < 1e-3, "{sum}");
        let flow: Vec<Vec<f32>> =
            (0..2).map(|axis| (0..6).map(|at| ((axis * 5 + at * 7) % 11) as f32 / 5.0).collect()).collect();
        let (_, slopes) = roughness(&[2, 3], &flow);
        for axis in 0..2 {
            for element in 0..6 {
                let at = |shift: f32| {
                    let mut moved = flow.clone();
                    moved[axis][element] += shift;
                    roughness(&[2, 3], &moved).0
                };
                let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
                assert!((slope - f64::from(slopes[axis][element])).abs() < 1e-2, "{axis} {element}");
            }
        }
    }

    #[test]
    fn displacements_are_bounded_in_the_unit_of_the_spacing() {
        let mut flow = vec![vec![3.0, 0.3], vec![4.0, 0.4]];
        Bound::check(1.0, &[]).unwrap().shorten(&mut flow);
        assert_eq!(flow, [[0.6, 0.3], [0.8, 0.4]]);
        // 2 mm a row and 0.5 mm a column: 3 rows and 4 columns are √(36 + 4) mm.
        let bound = Bound::check(10.0, &[2.0, 0.5]).unwrap();
        let fraction = bound.fraction(&[vec![3.0], vec![4.0]], 0);
        assert!((fraction - 40.0_f32.sqrt() / 10.0).abs() < 1e-6);
        assert!(bound.check_axes(2).is_ok() && bound.check_axes(3).is_err());
        assert!(Bound::check(0.0, &[]).is_err() && Bound::check(1.0, &[0.0]).is_err());
    }
}
