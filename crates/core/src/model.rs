//! What an attack may ask of a model.

use serde::{Deserialize, Serialize};

use crate::{Domain, Error, Objective, Outputs, Samples, Task};

/// What a model takes and what it decides. It travels inside model files.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Shape, bounds and unit of the inputs. Normalisation happens inside the model.
    pub domain: Domain,
    /// What is decided.
    pub task: Task,
    /// One name a class or finding.
    pub class_names: Vec<String>,
}

impl ModelSpec {
    /// Checks the task, and that there is one name a class or finding.
    ///
    /// # Errors
    ///
    /// As [`Task::check`], and when the numbers differ.
    pub fn check(&self) -> Result<(), Error> {
        self.task.check()?;
        if self.class_names.len() == self.task.classes() {
            Ok(())
        } else {
            Err(Error::mismatch("number of class names", self.task.classes(), self.class_names.len()))
        }
    }

    /// Checks that samples have the shape that the model takes.
    ///
    /// # Errors
    ///
    /// When they do not.
    pub fn check_shape(&self, inputs: &Samples) -> Result<(), Error> {
        let expected = self.domain.shape();
        if inputs.shape() == expected {
            Ok(())
        } else {
            Err(Error::mismatch("shape of a sample", format!("{expected:?}"), format!("{:?}", inputs.shape())))
        }
    }
}

/// Anything that maps samples to outputs. Black-box attacks need no more.
pub trait Model: Send + Sync {
    /// Inputs and task.
    fn spec(&self) -> &ModelSpec;

    /// Logits of each sample; one forward pass a sample.
    ///
    /// The logits of a sample may not depend on the other samples of the batch.
    ///
    /// # Errors
    ///
    /// When the samples do not have the model's shape or the model fails.
    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error>;
}

/// What one forward and one backward pass give.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradient {
    /// Logits of each sample.
    pub outputs: Outputs,
    /// Objective of each sample.
    pub values: Vec<f32>,
    /// d objective / d input, shaped as the inputs.
    pub inputs: Samples,
}

/// Adds the one thing that white-box attacks need.
pub trait DifferentiableModel: Model {
    /// Outputs, per-sample objective, and d objective / d inputs, in one forward and one backward pass a sample.
    ///
    /// # Errors
    ///
    /// As [`Model::outputs`], and whatever the objective returns.
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error>;

    /// [`DifferentiableModel::gradient`] of several objectives at the same inputs.
    ///
    /// An executor that keeps its forward pass overrides this; the default runs one pass an objective.
    ///
    /// # Errors
    ///
    /// As [`DifferentiableModel::gradient`].
    fn gradients(&self, inputs: &Samples, objectives: &[&dyn Objective]) -> Result<Vec<Gradient>, Error> {
        objectives.iter().map(|objective| self.gradient(inputs, *objective)).collect()
    }
}

/// A model without gradients (an endpoint, a device), for attacks that only query: asking it for a gradient is an
/// error.
pub struct BlackBox<M>(pub M);

impl<M: Model> Model for BlackBox<M> {
    fn spec(&self) -> &ModelSpec {
        self.0.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        self.0.outputs(inputs)
    }
}

impl<M: Model> DifferentiableModel for BlackBox<M> {
    fn gradient(&self, _: &Samples, _: &dyn Objective) -> Result<Gradient, Error> {
        Err(Error::unsupported(
            "a gradient of this model",
            "it only answers queries; choose a score or decision attack",
        ))
    }
}
