//! A model whose input passes through random transformations: expectation over transformation.
//!
//! ```text
//! outputs(x)  = 1/K Σ_k f(t_k(x))          gradient(x) = 1/K Σ_k ∇ₓL(f(t_k(x)))         t_k drawn anew at every call
//! ```
//!
//! Source: Athalye, Engstrom, Ilyas & Kwok, ICML 2018, arXiv:1707.07397, section 2.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use nocebo_core::{DifferentiableModel, Error, Gradient, Model, ModelSpec, Objective, Outputs, Samples, Seed};

use super::{Chain, Transformations, pull_back_rows, transformed};

/// A model behind random transformations. The n-th call about a sample draws from (seed, n, draw, sample index), so a
/// result does not depend on the batch. One call costs as many passes of the inner model as there are draws.
pub struct Randomised<'a> {
    model: &'a dyn DifferentiableModel,
    transformations: &'a Transformations,
    draws: usize,
    seed: Seed,
    calls: Mutex<BTreeMap<u64, u64>>,
}

impl<'a> Randomised<'a> {
    /// `model` behind means over `draws` transformations.
    ///
    /// # Errors
    ///
    /// When there is no draw, or a transformation cannot be applied to the model's inputs.
    pub fn new(
        model: &'a dyn DifferentiableModel,
        transformations: &'a Transformations,
        draws: usize,
        seed: Seed,
    ) -> Result<Self, Error> {
        if draws == 0 {
            return Err(Error::invalid("draws", "at least 1", draws));
        }
        transformations.check(&model.spec().domain)?;
        Ok(Self { model, transformations, draws, seed, calls: Mutex::default() })
    }

    /// The transformations of every draw of the next call about these rows.
    fn draw(&self, inputs: &Samples) -> Vec<Vec<Chain>> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let seeds: Vec<Seed> = inputs
            .indices()
            .iter()
            .map(|sample| self.seed.stream(calls.get(sample).copied().unwrap_or_default()))
            .collect();
        for sample in inputs.indices().iter().collect::<std::collections::BTreeSet<_>>() {
            *calls.entry(*sample).or_default() += 1;
        }
        let domain = &self.model.spec().domain;
        (0..self.draws as u64)
            .map(|draw| {
                let rows = seeds.iter().zip(inputs.indices());
                rows.map(|(seed, &sample)| self.transformations.draw(domain, &mut seed.stream(draw).for_sample(sample)))
                    .collect()
            })
            .collect()
    }
}

/// A running mean of rows, in f64.
struct Mean(Vec<f64>);

impl Mean {
    fn add(&mut self, values: &[f32]) {
        self.0.resize(values.len(), 0.0);
        for (sum, value) in self.0.iter_mut().zip(values) {
            *sum += f64::from(*value);
        }
    }

    fn of(&self, count: usize) -> Vec<f32> {
        self.0.iter().map(|sum| (sum / count as f64) as f32).collect()
    }
}

impl Model for Randomised<'_> {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        let mut mean = Mean(Vec::new());
        for through in self.draw(inputs) {
            mean.add(self.model.outputs(&transformed(inputs, &through))?.as_samples().values());
        }
        as_rows(mean.of(self.draws), &[self.spec().task.outputs()], inputs).map(Into::into)
    }
}

impl DifferentiableModel for Randomised<'_> {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let mut gradients = self.gradients(inputs, &[objective])?;
        gradients.pop().ok_or_else(|| Error::mismatch("gradients of one objective", 1, 0))
    }

    fn gradients(&self, inputs: &Samples, objectives: &[&dyn Objective]) -> Result<Vec<Gradient>, Error> {
        let mut means: Vec<[Mean; 3]> = objectives.iter().map(|_| [const { Mean(Vec::new()) }; 3]).collect();
        for through in self.draw(inputs) {
            let answers = self.model.gradients(&transformed(inputs, &through), objectives)?;
            for (mean, mut gradient) in means.iter_mut().zip(answers) {
                pull_back_rows(inputs, &mut gradient.inputs, &through);
                mean[0].add(gradient.outputs.as_samples().values());
                mean[1].add(&gradient.values);
                mean[2].add(gradient.inputs.values());
            }
        }
        means
            .into_iter()
            .map(|[outputs, values, slopes]| {
                Ok(Gradient {
                    outputs: as_rows(outputs.of(self.draws), &[self.spec().task.outputs()], inputs)?.into(),
                    values: values.of(self.draws),
                    inputs: as_rows(slopes.of(self.draws), inputs.shape(), inputs)?,
                })
            })
            .collect()
    }
}

fn as_rows(values: Vec<f32>, shape: &[usize], like: &Samples) -> Result<Samples, Error> {
    Samples::new(values, shape)?.with_indices(like.indices().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transformation::RandomTransformation;
    use nocebo_core::{Goal, GoalObjective, Loss};
    use nocebo_testkit::suite;

    fn tones() -> Transformations {
        vec![
            RandomTransformation::Tone { contrast: [0.5, 1.5], brightness: 0.0 },
            RandomTransformation::Noise { deviation: [0.0, 0.01] },
        ]
        .try_into()
        .unwrap()
    }

    #[test]
    fn without_transformations_it_is_the_model() {
        let (model, samples) = (suite::small_relu(), suite::ct_samples());
        let identity = Transformations::default();
        let randomised = Randomised::new(&model, &identity, 3, Seed(1)).unwrap();
        assert_eq!(randomised.outputs(&samples).unwrap(), model.outputs(&samples).unwrap());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let objective = GoalObjective::new(&goal, &model.spec().task, Loss::CrossEntropy).unwrap();
        let (ours, theirs) = (randomised.gradient(&samples, &objective), model.gradient(&samples, &objective));
        assert_eq!(ours.unwrap(), theirs.unwrap());
        assert!(Randomised::new(&model, &identity, 0, Seed(1)).is_err());
    }

    #[test]
    fn the_gradient_of_a_linear_model_is_scaled_by_the_mean_contrast() {
        let (model, samples) = (suite::linear_binary(), suite::ct_samples().select(&[2]));
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let objective = GoalObjective::new(&goal, &model.spec().task, Loss::Margin).unwrap();
        let exact = model.gradient(&samples, &objective).unwrap().inputs;
        let tones = tones();
        let mean = Randomised::new(&model, &tones, 400, Seed(5)).unwrap().gradient(&samples, &objective).unwrap();
        // The contrast is uniform in 0.5..1.5: the mean of 400 draws lies within five standard errors of 1.
        for (mean, exact) in mean.inputs.values().iter().zip(exact.values()) {
            assert!((mean - exact).abs() <= 0.075 * exact.abs(), "{mean} {exact}");
        }
    }

    #[test]
    fn draws_change_from_call_to_call_but_not_with_the_batch() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let tones = tones();
        let whole = Randomised::new(&model, &tones, 2, Seed(1)).unwrap();
        let part = Randomised::new(&model, &tones, 2, Seed(1)).unwrap();
        let first = whole.outputs(&samples).unwrap();
        assert_ne!(first, whole.outputs(&samples).unwrap());
        assert_eq!(part.outputs(&samples.select(&[6, 3])).unwrap().row(1), first.row(3));
    }
}
