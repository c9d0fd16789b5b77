//! Defences that only look robust, around any model. An evaluation that is worth its name must see through each.
//!
//! | Defence | What it does to an attack |
//! |---|---|
//! | [`QuantisedInput`] | shatters the gradient: it is zero almost everywhere |
//! | [`SaturatedSoftmax`] | masks the gradient: probabilities of 0 and 1 have no slope |
//! | [`RandomisedInput`] | answers differently every time |
//! | [`SurrogateGradient`] | a step without derivative, whose backward pass is that of another function |
//! | [`StepCounter`] | notices an iterative attack and misleads it |
//! | [`ClippedLogits`] | no slope beyond a confidence |
//! | [`NanBranch`] | not a number in a part of the input space |
//!
//! Sources: Athalye et al. 2018 (shattered, stochastic and vanishing gradients); Carlini & Wagner 2017 (saturated
//! softmax of defensive distillation); the step counter is made up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nocebo_core::{DifferentiableModel, Error, Gradient, Model, ModelSpec, Objective, Outputs, Samples, Seed};
use rand::RngExt;

/// Rounds every input to coarse steps before the model sees it. The derivative of that is zero.
#[derive(Clone, Debug)]
pub struct QuantisedInput<M> {
    /// The model.
    pub model: M,
    /// Size of the steps, in the unit of the data; above 0.
    pub step: f32,
}

impl<M: Model> Model for QuantisedInput<M> {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        self.model.outputs(&mapped(inputs, |value| (value / self.step).round() * self.step))
    }
}

impl<M: DifferentiableModel> DifferentiableModel for QuantisedInput<M> {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let quantised = mapped(inputs, |value| (value / self.step).round() * self.step);
        let mut gradient = self.model.gradient(&quantised, objective)?;
        gradient.inputs.values_mut().fill(0.0);
        Ok(gradient)
    }
}

/// Cuts each value to the nearer end of a window, a step without derivative, and passes the gradient on as if it had
/// been the identity.
#[derive(Clone, Debug)]
pub struct SurrogateGradient<M> {
    /// The model.
    pub model: M,
    /// Values below go to the lower end, others to the upper.
    pub threshold: f32,
    /// The two values that remain.
    pub ends: (f32, f32),
}

impl<M: Model> Model for SurrogateGradient<M> {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        self.model.outputs(&self.cut(inputs))
    }
}

impl<M> SurrogateGradient<M> {
    fn cut(&self, inputs: &Samples) -> Samples {
        mapped(inputs, |value| if value < self.threshold { self.ends.0 } else { self.ends.1 })
    }
}

impl<M: DifferentiableModel> DifferentiableModel for SurrogateGradient<M> {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        self.model.gradient(&self.cut(inputs), objective)
    }
}

/// Gives probabilities, sharpened until they are 0 and 1, in the place of logits.
#[derive(Clone, Debug)]
pub struct SaturatedSoftmax<M> {
    /// The model.
    pub model: M,
    /// Factor on the logits before the softmax.
    pub sharpness: f32,
}

impl<M> SaturatedSoftmax<M> {
    fn probabilities(&self, logits: &[f32]) -> Vec<f32> {
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let odds: Vec<f32> = logits.iter().map(|logit| (self.sharpness * (logit - greatest)).exp()).collect();
        let sum: f32 = odds.iter().sum();
        odds.iter().map(|odd| odd / sum).collect()
    }

    /// Pulls a cotangent on the probabilities back to the logits.
    fn pull_back(&self, logits: &[f32], cotangent: &[f32]) -> Vec<f32> {
        let probabilities = self.probabilities(logits);
        let mean: f32 = probabilities.iter().zip(cotangent).map(|(p, c)| p * c).sum();
        probabilities.iter().zip(cotangent).map(|(p, c)| self.sharpness * p * (c - mean)).collect()
    }
}

impl<M: Model> Model for SaturatedSoftmax<M> {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        over_logits(&self.model.outputs(inputs)?, |logits| self.probabilities(logits))
    }
}

impl<M: DifferentiableModel> DifferentiableModel for SaturatedSoftmax<M> {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let through = Through {
            objective,
            forward: |logits: &[f32]| self.probabilities(logits),
            backward: |logits: &[f32], cotangent: &[f32]| self.pull_back(logits, cotangent),
        };
        let mut gradient = self.model.gradient(inputs, &through)?;
        gradient.outputs = over_logits(&gradient.outputs, |logits| self.probabilities(logits))?;
        Ok(gradient)
    }
}

/// Cuts the logits to a range, beyond which they have no slope.
#[derive(Clone, Debug)]
pub struct ClippedLogits<M> {
    /// The model.
    pub model: M,
    /// Greatest magnitude of a logit; above 0.
    pub bound: f32,
}

impl<M: Model> Model for ClippedLogits<M> {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        over_logits(&self.model.outputs(inputs)?, |logits| self.clipped(logits))
    }
}

impl<M> ClippedLogits<M> {
    fn clipped(&self, logits: &[f32]) -> Vec<f32> {
        logits.iter().map(|logit| logit.clamp(-self.bound, self.bound)).collect()
    }
}

impl<M: DifferentiableModel> DifferentiableModel for ClippedLogits<M> {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let slope = |(logit, cotangent): (&f32, &f32)| if logit.abs() < self.bound { *cotangent } else { 0.0 };
        let through = Through {
            objective,
            forward: |logits: &[f32]| self.clipped(logits),
            backward: |logits: &[f32], cotangent: &[f32]| logits.iter().zip(cotangent).map(slope).collect(),
        };
        let mut gradient = self.model.gradient(inputs, &through)?;
        gradient.outputs = over_logits(&gradient.outputs, |logits| self.clipped(logits))?;
        Ok(gradient)
    }
}

/// Adds noise to the input, new at every call.
#[derive(Debug)]
pub struct RandomisedInput<M> {
    model: M,
    amount: f32,
    calls: AtomicU64,
}

impl<M> RandomisedInput<M> {
    /// Noise of at most `amount` an element, in the unit of the data.
    pub fn new(model: M, amount: f32) -> Self {
        Self { model, amount, calls: AtomicU64::new(0) }
    }

    fn noisy(&self, inputs: &Samples) -> Samples {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut generator = Seed(call).for_sample(0);
        mapped(inputs, |value| value + self.amount * generator.random_range(-1.0_f32..=1.0))
    }
}

impl<M: Model> Model for RandomisedInput<M> {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        self.model.outputs(&self.noisy(inputs))
    }
}

impl<M: DifferentiableModel> DifferentiableModel for RandomisedInput<M> {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        self.model.gradient(&self.noisy(inputs), objective)
    }
}

/// Counts the gradients asked of each sample since its last plain query, and points the wrong way once they look like
/// an iterative attack.
#[derive(Debug)]
pub struct StepCounter<M> {
    model: M,
    patience: u32,
    steps: Mutex<BTreeMap<u64, u32>>,
}

impl<M> StepCounter<M> {
    /// Honest for `patience` gradients in a row.
    pub fn new(model: M, patience: u32) -> Self {
        Self { model, patience, steps: Mutex::default() }
    }
}

impl<M: Model> Model for StepCounter<M> {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        for sample in inputs.indices() {
            steps.remove(sample);
        }
        self.model.outputs(inputs)
    }
}

impl<M: DifferentiableModel> DifferentiableModel for StepCounter<M> {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let mut gradient = self.model.gradient(inputs, objective)?;
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        for (row, sample) in inputs.indices().iter().enumerate() {
            let seen = steps.entry(*sample).or_default();
            *seen += 1;
            if *seen > self.patience {
                gradient.inputs.row_mut(row).iter_mut().for_each(|slope| *slope = -*slope);
            }
        }
        Ok(gradient)
    }
}

/// Not a number where an element is greater than a value.
#[derive(Clone, Debug)]
pub struct NanBranch<M> {
    /// The model.
    pub model: M,
    /// The greatest value that the model can bear, in the unit of the data.
    pub greatest: f32,
}

impl<M: Model> Model for NanBranch<M> {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        let mut outputs = self.model.outputs(inputs)?.as_samples().clone();
        for (logits, row) in outputs.rows_mut().zip(inputs.rows()) {
            if row.iter().any(|value| *value > self.greatest) {
                logits.fill(f32::NAN);
            }
        }
        Ok(outputs.into())
    }
}

impl<M: DifferentiableModel> DifferentiableModel for NanBranch<M> {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let mut gradient = self.model.gradient(inputs, objective)?;
        gradient.outputs = self.outputs(inputs)?;
        Ok(gradient)
    }
}

/// An objective of changed logits, as an objective of the logits themselves.
struct Through<'a, F, B> {
    objective: &'a dyn Objective,
    forward: F,
    backward: B,
}

impl<F, B> Objective for Through<'_, F, B>
where
    F: Fn(&[f32]) -> Vec<f32> + Sync,
    B: Fn(&[f32], &[f32]) -> Vec<f32> + Sync,
{
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        let value = self.objective.evaluate(row, &(self.forward)(outputs), cotangent)?;
        let pulled = (self.backward)(outputs, cotangent);
        cotangent.copy_from_slice(&pulled);
        Ok(value)
    }
}

fn mapped(inputs: &Samples, mut change: impl FnMut(f32) -> f32) -> Samples {
    let mut changed = inputs.clone();
    changed.values_mut().iter_mut().for_each(|value| *value = change(*value));
    changed
}

fn over_logits(outputs: &Outputs, change: impl Fn(&[f32]) -> Vec<f32>) -> Result<Outputs, Error> {
    let values = outputs.rows().flat_map(change).collect();
    let samples = outputs.as_samples();
    Ok(Samples::new(values, samples.shape())?.with_indices(samples.indices().to_vec())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::{ct_samples, decided, small_relu};
    use nocebo_core::{Goal, GoalObjective, Loss};

    /// Greatest difference between the gradient of the margin and central differences of it, over the greatest slope.
    fn error_of_gradient(model: &dyn DifferentiableModel) -> f64 {
        let inputs = ct_samples();
        let goal = Goal::Untargeted { labels: decided(model, &inputs) };
        let margin = GoalObjective::new(&goal, &model.spec().task, Loss::Margin).unwrap();
        let gradient = model.gradient(&inputs, &margin).unwrap();
        let (mut worst, mut greatest) = (0.0_f64, 0.0_f64);
        for element in 0..inputs.elements() {
            let at = |shift: f32| {
                let mut moved = inputs.clone();
                moved.rows_mut().for_each(|row| row[element] += shift);
                model.gradient(&moved, &margin).unwrap().values
            };
            for (row, (above, below)) in at(0.1).iter().zip(at(-0.1)).enumerate() {
                let slope = f64::from(gradient.inputs.row(row)[element]);
                worst = worst.max((f64::from(above - below) / 0.2 - slope).abs());
                greatest = greatest.max(slope.abs());
            }
        }
        worst / greatest
    }

    #[test]
    fn defences_on_the_logits_have_the_gradient_of_what_they_compute() {
        // Soft enough to have a slope everywhere.
        assert!(error_of_gradient(&small_relu()) < 0.02);
        assert!(error_of_gradient(&SaturatedSoftmax { model: small_relu(), sharpness: 0.05 }) < 0.02);
        assert!(error_of_gradient(&ClippedLogits { model: small_relu(), bound: 1e3 }) < 0.02);
    }

    #[test]
    fn the_step_counter_turns_and_forgets() {
        let model = StepCounter::new(small_relu(), 2);
        let inputs = ct_samples();
        let goal = Goal::Untargeted { labels: decided(&model, &inputs) };
        let margin = GoalObjective::new(&goal, &model.spec().task, Loss::Margin).unwrap();
        let first = model.gradient(&inputs, &margin).unwrap().inputs;
        assert_eq!(model.gradient(&inputs, &margin).unwrap().inputs, first);
        let turned = model.gradient(&inputs, &margin).unwrap().inputs;
        assert!(turned.values().iter().zip(first.values()).all(|(turned, first)| *turned == -first));
        model.outputs(&inputs).unwrap();
        assert_eq!(model.gradient(&inputs, &margin).unwrap().inputs, first);
    }
}
