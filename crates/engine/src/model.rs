//! A planned network as a model that attacks can ask.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use nocebo_core::{DifferentiableModel, Gradient, Model, ModelSpec, Objective, Outputs, Samples};
use nocebo_graph::Graph;

use crate::lowering::Lowering;
use crate::plan::{Plan, Workspace};
use crate::{Error, InstructionSet};

/// How a network is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether 3×3 convolutions may be computed in the tile domain (Winograd), which is two to three times as fast and
    /// rounds by about 10⁻⁶ of a layer's result instead of 10⁻⁷.
    pub winograd: bool,
    /// Vector instructions; `None` for what [`InstructionSet::chosen`] says.
    pub instruction_set: Option<InstructionSet>,
}

impl Default for Options {
    /// The fastest.
    fn default() -> Self {
        Self { winograd: true, instruction_set: None }
    }
}

/// A frozen network on this processor, with what it takes and decides.
///
/// The first input of the graph takes the samples, `[batch, ...]`, and its first output gives the logits; where it ends in
/// the softmax or sigmoid of the task, that is left out ([`Graph::up_to_logits`]). The answer for a sample is the same to
/// the bit whatever batch it comes in and however many threads work; it may differ between instruction sets.
pub struct EngineModel {
    plan: Plan,
    graph: Arc<Graph>,
    spec: ModelSpec,
    /// Most samples of one pass.
    chunk: usize,
    /// Memory of passes that have ended.
    idle: Mutex<Vec<Workspace>>,
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
        let set = match options.instruction_set {
            Some(set) if set.is_available() => set,
            Some(set) => return Err(Error::InstructionSet(set.to_string())),
            None => InstructionSet::chosen().map_err(Error::InstructionSet)?,
        };
        let mut logits = graph.into().up_to_logits(&spec.task);
        logits.outputs.truncate(1);
        logits.prune();
        let graph = Arc::new(logits);
        let plan = Lowering::new(&graph, spec.domain.shape(), set)?.plan(options.winograd)?;
        let expected = spec.task.outputs();
        if plan.outputs() != expected {
            return Err(Error::Graph(nocebo_graph::Error::Graph {
                what: "output of the network".to_owned(),
                expected: format!("{expected} logits for each sample"),
                got: plan.outputs().to_string(),
            }));
        }
        if !plan.has_gradient() {
            return Err(Error::Graph(nocebo_graph::Error::NoGradient {
                wanted: "the input".to_owned(),
                cut: "the output, which does not depend on it".to_owned(),
            }));
        }
        // The whole batch of an attack where memory allows: large products use the weights that they read more often.
        let chunk = (MOST_FLOATS / plan.floats().max(1)).clamp(1, MOST_SAMPLES);
        Ok(Self { plan, graph, spec, chunk, idle: Mutex::default() })
    }

    /// The network up to its logits.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Vector instructions that it uses.
    pub fn instruction_set(&self) -> InstructionSet {
        self.plan.instruction_set()
    }

    /// The steps in order: name of the node and what computes it.
    pub fn steps(&self) -> impl Iterator<Item = (&str, String)> {
        self.plan.steps().iter().map(|step| (step.name.as_str(), step.layer.kernel()))
    }

    /// Rows of each pass, as ranges of the batch.
    fn passes(&self, inputs: &Samples) -> impl Iterator<Item = Range<usize>> {
        let (count, chunk) = (inputs.len(), self.chunk);
        (0..count).step_by(chunk).map(move |start| start..count.min(start + chunk))
    }

    /// Runs `work` with memory for `samples` samples.
    fn with_workspace<R>(&self, samples: usize, work: impl FnOnce(&mut Workspace) -> R) -> R {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let found = idle().pop();
        let mut workspace = match found {
            Some(workspace) if workspace.holds(samples) => workspace,
            _ => self.plan.workspace(samples),
        };
        let result = work(&mut workspace);
        idle().push(workspace);
        result
    }

    fn wrap(&self, values: Vec<f32>, inputs: &Samples) -> Result<Outputs, nocebo_core::Error> {
        Ok(Samples::new(values, &[self.spec.task.outputs()])?.with_indices(inputs.indices().to_vec())?.into())
    }
}

/// Most floats of the memory of one pass: 192 MiB.
const MOST_FLOATS: usize = 48 << 20;

/// Most samples of one pass.
const MOST_SAMPLES: usize = 64;

impl Model for EngineModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, nocebo_core::Error> {
        self.spec.check_shape(inputs)?;
        let mut logits = Vec::with_capacity(inputs.len() * self.plan.outputs());
        for rows in self.passes(inputs) {
            let values = rows_of(inputs, &rows);
            self.with_workspace(rows.len(), |workspace| {
                logits.extend_from_slice(self.plan.forward(workspace, values));
            });
        }
        self.wrap(logits, inputs)
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
        let width = self.plan.outputs();
        let mut logits = Vec::with_capacity(inputs.len() * width);
        let mut values = vec![Vec::with_capacity(inputs.len()); objectives.len()];
        let mut slopes = vec![Vec::with_capacity(inputs.values().len()); objectives.len()];
        for rows in self.passes(inputs) {
            self.with_workspace(rows.len(), |workspace| -> Result<(), nocebo_core::Error> {
                let made = self.plan.forward(workspace, rows_of(inputs, &rows)).to_vec();
                for ((objective, values), slopes) in objectives.iter().zip(&mut values).zip(&mut slopes) {
                    let mut cotangents = vec![0.0; made.len()];
                    let per_row = made.chunks_exact(width).zip(cotangents.chunks_exact_mut(width));
                    for (row, (logits, cotangent)) in rows.clone().zip(per_row) {
                        values.push(objective.evaluate(row, logits, cotangent)?);
                    }
                    slopes.extend_from_slice(self.plan.backward(workspace, &cotangents).unwrap_or_default());
                }
                logits.extend_from_slice(&made);
                Ok(())
            })?;
        }
        let outputs = self.wrap(logits, inputs)?;
        let gradient = |(values, slopes): (Vec<f32>, Vec<f32>)| {
            let inputs = Samples::new(slopes, inputs.shape())?.with_indices(inputs.indices().to_vec())?;
            Ok(Gradient { outputs: outputs.clone(), values, inputs })
        };
        values.into_iter().zip(slopes).map(gradient).collect()
    }
}

fn rows_of<'a>(inputs: &'a Samples, rows: &Range<usize>) -> &'a [f32] {
    &inputs.values()[rows.start * inputs.elements()..rows.end * inputs.elements()]
}
