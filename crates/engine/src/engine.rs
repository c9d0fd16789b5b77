//! A planned graph: values in, values and gradients out.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use nocebo_graph::Graph;

use crate::kernels::inside_the_pool;
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

/// Most floats of the memory of one pass: 192 MiB.
const MOST_FLOATS: usize = 48 << 20;

/// Most samples of one pass.
const MOST_SAMPLES: usize = 64;

/// The first output of a graph as a function of its one input, whatever they mean; a network with its spec is an
/// [`EngineModel`](crate::EngineModel).
///
/// The answer for a sample is the same to the bit whatever batch it comes in and however many threads work; it may differ
/// between instruction sets.
pub struct Engine {
    plan: Plan,
    /// Most samples of one pass.
    chunk: usize,
    /// Memory of passes that have ended.
    idle: Mutex<Vec<Workspace>>,
}

impl Engine {
    /// Plans `graph` for samples of this shape and packs its weights.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a node that the engine does not compute; when the graph is not well formed, has more than
    /// one input, or an output that does not depend on it; and for an instruction set that this machine lacks.
    pub fn new(graph: Graph, sample: &[usize], options: Options) -> Result<Self, Error> {
        let set = match options.instruction_set {
            Some(set) if set.is_available() => set,
            Some(set) => return Err(Error::InstructionSet(set.to_string())),
            None => InstructionSet::chosen().map_err(Error::InstructionSet)?,
        };
        let drafts = Lowering::new(&graph, sample, set)?.drafted()?;
        // Packed weights are several times as large as the graph's: these must not stay beside them.
        drop(graph);
        let plan = drafts.plan(options.winograd);
        if !plan.has_gradient() {
            return Err(Error::Graph(nocebo_graph::Error::NoGradient {
                wanted: "the input".to_owned(),
                cut: "the output, which does not depend on it".to_owned(),
            }));
        }
        // The whole batch of an attack where memory allows: large products use the weights that they read more often.
        let chunk = (MOST_FLOATS / plan.floats().max(1)).clamp(1, MOST_SAMPLES);
        Ok(Self { plan, chunk, idle: Mutex::default() })
    }

    /// Vector instructions that it uses.
    pub fn instruction_set(&self) -> InstructionSet {
        self.plan.instruction_set()
    }

    /// The steps in order: name of the node and what computes it.
    pub fn steps(&self) -> impl Iterator<Item = (&str, String)> {
        self.plan.steps().iter().map(|step| (step.name.as_str(), step.layer.kernel()))
    }

    /// Values of an output sample.
    pub fn width(&self) -> usize {
        self.plan.outputs()
    }

    /// Samples of each pass, as ranges of all.
    fn passes(&self, inputs: &[f32]) -> impl Iterator<Item = Range<usize>> {
        let (count, chunk) = (inputs.len() / self.plan.inputs(), self.chunk);
        (0..count).step_by(chunk).map(move |start| start..count.min(start + chunk))
    }

    fn rows<'a>(&self, inputs: &'a [f32], rows: &Range<usize>) -> &'a [f32] {
        &inputs[rows.start * self.plan.inputs()..rows.end * self.plan.inputs()]
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

    /// Outputs of samples that lie one after the other in `inputs`.
    pub fn outputs(&self, inputs: &[f32]) -> Vec<f32> {
        let mut outputs = Vec::with_capacity(inputs.len() / self.plan.inputs() * self.plan.outputs());
        for rows in self.passes(inputs) {
            self.with_workspace(rows.len(), |workspace| {
                let rows = self.rows(inputs, &rows);
                outputs.extend_from_slice(inside_the_pool(|| self.plan.forward(workspace, rows)));
            });
        }
        outputs
    }

    /// Outputs, and for each of `count` cotangents the gradient by the inputs; one forward pass for all.
    ///
    /// `cotangent` is given the number of the cotangent, that of a sample and its output, and writes into the last slice the
    /// derivative by that output.
    ///
    /// # Errors
    ///
    /// What `cotangent` returns.
    pub fn gradients<E>(
        &self,
        inputs: &[f32],
        count: usize,
        mut cotangent: impl FnMut(usize, usize, &[f32], &mut [f32]) -> Result<(), E>,
    ) -> Result<(Vec<f32>, Vec<Vec<f32>>), E> {
        let width = self.plan.outputs();
        let mut outputs = Vec::with_capacity(inputs.len() / self.plan.inputs() * width);
        let mut gradients = vec![Vec::with_capacity(inputs.len()); count];
        for rows in self.passes(inputs) {
            self.with_workspace(rows.len(), |workspace| {
                let given = self.rows(inputs, &rows);
                let made = inside_the_pool(|| self.plan.forward(workspace, given)).to_vec();
                for (number, gradient) in gradients.iter_mut().enumerate() {
                    let mut cotangents = vec![0.0; made.len()];
                    let per_row = made.chunks_exact(width).zip(cotangents.chunks_exact_mut(width));
                    for (row, (output, slope)) in rows.clone().zip(per_row) {
                        cotangent(number, row, output, slope)?;
                    }
                    let slopes = inside_the_pool(|| self.plan.backward(workspace, &cotangents));
                    gradient.extend_from_slice(slopes.unwrap_or_default());
                }
                outputs.extend_from_slice(&made);
                Ok(())
            })?;
        }
        Ok((outputs, gradients))
    }
}
