//! Differentiable maps of a sample, and models behind them.
//!
//! A [`Transformation`] is one map with all its settings drawn: a warp, a blur, a change of tone. [`Transformations`]
//! describes what may be drawn, and [`Randomised`] is a model whose input is transformed at random before it answers.
//! Values keep their physical unit throughout.

pub mod distribution;
pub mod filter;
pub mod jpeg;
pub mod randomised;
pub mod tone;
pub mod warp;

use nocebo_core::{DifferentiableModel, Error, Gradient, Objective, Samples};

pub use distribution::{RandomTransformation, Transformations};
pub use randomised::Randomised;

/// A differentiable map of the values of one sample to a sample of the same shape.
pub trait Transformation: Send + Sync {
    /// The transformed values.
    fn apply(&self, values: &[f32]) -> Vec<f32>;

    /// The derivative of ⟨cotangent, apply(values)⟩ by the values.
    fn pull_back(&self, values: &[f32], cotangent: &[f32]) -> Vec<f32>;
}

impl<T: Transformation + ?Sized> Transformation for &T {
    fn apply(&self, values: &[f32]) -> Vec<f32> {
        (*self).apply(values)
    }

    fn pull_back(&self, values: &[f32], cotangent: &[f32]) -> Vec<f32> {
        (*self).pull_back(values, cotangent)
    }
}

/// Transformations one after another; none of them is the identity.
#[derive(Default)]
pub struct Chain(pub Vec<Box<dyn Transformation>>);

impl Transformation for Chain {
    fn apply(&self, values: &[f32]) -> Vec<f32> {
        self.0.iter().fold(values.to_vec(), |values, link| link.apply(&values))
    }

    fn pull_back(&self, values: &[f32], cotangent: &[f32]) -> Vec<f32> {
        let mut stages = vec![values.to_vec()];
        for link in self.0.iter().take(self.0.len().saturating_sub(1)) {
            let next = link.apply(&stages[stages.len() - 1]);
            stages.push(next);
        }
        let links = self.0.iter().zip(&stages).rev();
        links.fold(cotangent.to_vec(), |cotangent, (link, values)| link.pull_back(values, &cotangent))
    }
}

/// Each row of `points` after its own transformation.
///
/// # Panics
///
/// When there is not one transformation a row.
pub fn transformed(points: &Samples, through: &[impl Transformation]) -> Samples {
    assert_eq!(points.len(), through.len());
    let mut moved = points.clone();
    for (row, link) in through.iter().enumerate() {
        moved.row_mut(row).copy_from_slice(&link.apply(points.row(row)));
    }
    moved
}

/// Outputs, objective and gradient of each row after its own transformation; the gradient is by the row itself.
///
/// Costs one forward and one backward pass a row.
///
/// # Errors
///
/// Whatever the model returns.
///
/// # Panics
///
/// When there is not one transformation a row.
pub fn gradient_through(
    model: &dyn DifferentiableModel,
    points: &Samples,
    objective: &dyn Objective,
    through: &[impl Transformation],
) -> Result<Gradient, Error> {
    let mut gradient = model.gradient(&transformed(points, through), objective)?;
    pull_back_rows(points, &mut gradient.inputs, through);
    Ok(gradient)
}

/// Pulls gradients by the transformed rows back to gradients by the rows of `points`.
fn pull_back_rows(points: &Samples, gradients: &mut Samples, through: &[impl Transformation]) {
    for (row, link) in through.iter().enumerate() {
        let pulled = link.pull_back(points.row(row), gradients.row(row));
        gradients.row_mut(row).copy_from_slice(&pulled);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::Transformation;

    /// Checks a pull-back against central differences with the given step, to an absolute tolerance.
    pub(crate) fn agrees_with_differences(map: &dyn Transformation, values: &[f32], step: f32, tolerance: f32) {
        let cotangent: Vec<f32> = (0..values.len()).map(|at| ((at * 13 + 5) % 7) as f32 / 3.0 - 1.0).collect();
        let dot = |values: &[f32]| {
            map.apply(values).iter().zip(&cotangent).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
        };
        let slopes = map.pull_back(values, &cotangent);
        for element in 0..values.len() {
            let at = |shift: f32| {
                let mut moved = values.to_vec();
                moved[element] += shift;
                dot(&moved)
            };
            let slope = ((at(step) - at(-step)) / (2.0 * f64::from(step))) as f32;
            assert!((slope - slopes[element]).abs() < tolerance, "element {element}: {slope} but {}", slopes[element]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scale(f32);

    impl Transformation for Scale {
        fn apply(&self, values: &[f32]) -> Vec<f32> {
            values.iter().map(|value| value * value * self.0).collect()
        }

        fn pull_back(&self, values: &[f32], cotangent: &[f32]) -> Vec<f32> {
            values.iter().zip(cotangent).map(|(value, slope)| 2.0 * value * self.0 * slope).collect()
        }
    }

    #[test]
    fn a_chain_follows_the_chain_rule() {
        let chain = Chain(vec![Box::new(Scale(0.5)), Box::new(Scale(2.0)), Box::new(Scale(1.0))]);
        testing::agrees_with_differences(&chain, &[0.5, -1.0, 0.8], 1e-3, 1e-2);
        assert_eq!(Chain::default().apply(&[1.0, 2.0]), [1.0, 2.0]);
        assert_eq!(Chain::default().pull_back(&[1.0, 2.0], &[3.0, 4.0]), [3.0, 4.0]);
    }
}
