//! A planned network as a model that attacks can ask.

use std::sync::Arc;

use nocebo_core::{DifferentiableModel, Gradient, Model, ModelSpec, Objective, Outputs, Samples};
use nocebo_graph::Graph;

use crate::Error;
use crate::engine::{Engine, Options};

/// A frozen network on this processor, with what it takes and decides.
///
/// The first input of the graph takes the samples, `[batch, ...]`, and its first output gives the logits; where it ends in
/// the softmax or sigmoid of the task, that is left out ([`Graph::up_to_logits`]). The answer for a sample is the same to
/// the bit whatever batch it comes in and however many threads work; it may differ between instruction sets.
pub struct EngineModel {
    engine: Engine,
    spec: ModelSpec,
}

impl EngineModel {
    /// Plans `graph` and packs its weights.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a node that the engine does not compute; otherwise as
    /// [`GraphModel::new`](nocebo_graph::GraphModel::new), or when an instruction set is asked for that this machine lacks.
    pub fn new(graph: impl Into<Arc<Graph>>, spec: ModelSpec, options: Options) -> Result<Self, Error> {
        spec.check()?;
        let mut logits = graph.into().up_to_logits(&spec.task);
        logits.outputs.truncate(1);
        logits.prune();
        let engine = Engine::new(logits, spec.domain.shape(), options)?;
        let expected = spec.task.outputs();
        if engine.width() != expected {
            return Err(Error::Graph(nocebo_graph::Error::Graph {
                what: "output of the network".to_owned(),
                expected: format!("{expected} logits for each sample"),
                got: engine.width().to_string(),
            }));
        }
        Ok(Self { engine, spec })
    }

    /// What computes it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn wrap(&self, values: Vec<f32>, inputs: &Samples) -> Result<Outputs, nocebo_core::Error> {
        Ok(Samples::new(values, &[self.spec.task.outputs()])?.with_indices(inputs.indices().to_vec())?.into())
    }
}

impl Model for EngineModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, nocebo_core::Error> {
        self.spec.check_shape(inputs)?;
        self.wrap(self.engine.outputs(inputs.values()), inputs)
    }
}

impl DifferentiableModel for EngineModel {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, nocebo_core::Error> {
        let mut gradients = self.gradients(inputs, &[objective])?;
        gradients.pop().ok_or_else(|| nocebo_core::Error::mismatch("number of gradients", 1, 0))
    }

    /// One forward pass, and a backward pass an objective.
    fn gradients(&self, inputs: &Samples, objectives: &[&dyn Objective]) -> Result<Vec<Gradient>, nocebo_core::Error> {
        self.spec.check_shape(inputs)?;
        let mut values = vec![Vec::with_capacity(inputs.len()); objectives.len()];
        let (logits, slopes) =
            self.engine.gradients(inputs.values(), objectives.len(), |number, row, logits, cotangent| {
                values[number].push(objectives[number].evaluate(row, logits, cotangent)?);
                Ok::<(), nocebo_core::Error>(())
            })?;
        let outputs = self.wrap(logits, inputs)?;
        let gradient = |(values, slopes): (Vec<f32>, Vec<f32>)| {
            let inputs = Samples::new(slopes, inputs.shape())?.with_indices(inputs.indices().to_vec())?;
            Ok(Gradient { outputs: outputs.clone(), values, inputs })
        };
        values.into_iter().zip(slopes).map(gradient).collect()
    }
}
