//! The model as an attack sees it: counted, limited, and never silently broken.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::{DifferentiableModel, Error, Gradient, Model, ModelSpec, Objective, Outputs, Samples};

/// Passes spent on one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queries {
    /// Forward passes, those of gradients included.
    pub forward: u32,
    /// Backward passes.
    pub backward: u32,
}

/// A model behind a counter.
///
/// Every call counts one forward pass a sample (a gradient also one backward pass), by the sample's index in the data
/// set. A call that would exceed the query limit is refused as a whole. A NaN or infinite output, objective or
/// gradient is an error: it must never look like robustness.
pub struct Oracle<'a> {
    model: &'a dyn DifferentiableModel,
    limit: Option<u32>,
    counts: Mutex<BTreeMap<u64, Queries>>,
}

impl<'a> Oracle<'a> {
    /// `model` with at most `limit` forward passes a sample.
    pub fn new(model: &'a dyn DifferentiableModel, limit: Option<u32>) -> Self {
        Self { model, limit, counts: Mutex::default() }
    }

    /// Inputs and task of the model.
    pub fn spec(&self) -> &'a ModelSpec {
        self.model.spec()
    }

    /// Passes spent so far on the sample with this index.
    pub fn queries(&self, sample: u64) -> Queries {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).get(&sample).copied().unwrap_or_default()
    }

    /// Forward passes left for the sample with this index; `u32::MAX` without a limit.
    pub fn remaining(&self, sample: u64) -> u32 {
        self.limit.map_or(u32::MAX, |limit| limit.saturating_sub(self.queries(sample).forward))
    }

    /// Logits of each sample; one query a sample.
    ///
    /// # Errors
    ///
    /// [`Error::QueryLimit`], [`Error::NonFinite`], and whatever the model returns.
    pub fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        self.count(inputs, 1, 0)?;
        let outputs = self.model.outputs(inputs)?;
        check_outputs(inputs, &outputs)?;
        Ok(outputs)
    }

    /// Outputs, objective and gradient of each sample; one query and one gradient query a sample.
    ///
    /// # Errors
    ///
    /// As [`Oracle::outputs`].
    pub fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        self.count(inputs, 1, 1)?;
        let gradient = self.model.gradient(inputs, objective)?;
        check_gradient(inputs, &gradient)?;
        Ok(gradient)
    }

    /// Gradients of several objectives at the same inputs; one query and as many gradient queries a sample.
    ///
    /// # Errors
    ///
    /// As [`Oracle::outputs`].
    pub fn gradients(&self, inputs: &Samples, objectives: &[&dyn Objective]) -> Result<Vec<Gradient>, Error> {
        self.count(inputs, 1, objectives.len() as u32)?;
        let gradients = self.model.gradients(inputs, objectives)?;
        gradients.iter().try_for_each(|gradient| check_gradient(inputs, gradient))?;
        Ok(gradients)
    }

    fn count(&self, inputs: &Samples, forward: u32, backward: u32) -> Result<(), Error> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limit) = self.limit {
            let mut asked: BTreeMap<u64, u32> = BTreeMap::new();
            for &sample in inputs.indices() {
                let asked = asked.entry(sample).or_default();
                *asked += forward;
                if counts.get(&sample).map_or(0, |spent| spent.forward) + *asked > limit {
                    return Err(Error::QueryLimit { sample, limit });
                }
            }
        }
        for &sample in inputs.indices() {
            let spent = counts.entry(sample).or_default();
            spent.forward += forward;
            spent.backward += backward;
        }
        Ok(())
    }
}

/// The oracle is a model itself, so that a wrapper (a transformation, an average) can stand on it and stay counted.
impl Model for Oracle<'_> {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        Oracle::outputs(self, inputs)
    }
}

impl DifferentiableModel for Oracle<'_> {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        Oracle::gradient(self, inputs, objective)
    }

    fn gradients(&self, inputs: &Samples, objectives: &[&dyn Objective]) -> Result<Vec<Gradient>, Error> {
        Oracle::gradients(self, inputs, objectives)
    }
}

fn check_outputs(inputs: &Samples, outputs: &Outputs) -> Result<(), Error> {
    if outputs.len() != inputs.len() {
        return Err(Error::mismatch("rows of the model's outputs", inputs.len(), outputs.len()));
    }
    check_rows("output", inputs, outputs.rows())
}

fn check_gradient(inputs: &Samples, gradient: &Gradient) -> Result<(), Error> {
    check_outputs(inputs, &gradient.outputs)?;
    check_rows("objective", inputs, gradient.values.chunks_exact(1))?;
    check_rows("gradient", inputs, gradient.inputs.rows())
}

fn check_rows<'r>(what: &'static str, inputs: &Samples, rows: impl Iterator<Item = &'r [f32]>) -> Result<(), Error> {
    for (row, &sample) in rows.zip(inputs.indices()) {
        if row.iter().any(|value| !value.is_finite()) {
            return Err(Error::NonFinite { what, sample });
        }
    }
    Ok(())
}
