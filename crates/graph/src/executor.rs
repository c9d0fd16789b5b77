//! Runs a graph on a device.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use nocebo_core::Seed;

use crate::memory::afford;
use crate::operators::{Arguments, BatchNormalization, Fact, Facts, Operator};
use crate::plan::{Plan, bytes_made, fact_of};
use crate::value::{DeviceTensor, Value};
use crate::{Device, Dimension, Error, Graph, Input, Tensor};

/// How layers behave that differ between use and training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mode {
    /// Whether batch normalisation takes the statistics of the batch.
    pub(crate) batch_statistics: bool,
    /// Seed of this step where dropout is active.
    pub(crate) dropout: Option<Seed>,
}

/// What one run gives.
pub(crate) struct Execution {
    /// Values of the graph's outputs.
    pub(crate) outputs: Vec<Value>,
    /// Statistics of the batch where batch normalisation took them: name of the running statistic, momentum, value.
    pub(crate) statistics: Vec<(String, f32, DeviceTensor)>,
    /// Nodes that took a value with history and made none.
    pub(crate) cuts: Vec<String>,
}

/// A graph on a device, ready to run.
///
/// Shapes are checked, and everything that follows from shapes and constants is computed, once for each shape of the
/// inputs. Runs from several threads do not disturb each other.
pub struct Executor {
    graph: Arc<Graph>,
    device: Device,
    constants: HashMap<String, Value>,
    plans: Mutex<HashMap<Vec<Vec<usize>>, Arc<Plan>>>,
}

/// Most plans that are kept: inputs of many different shapes must not fill the memory.
const MOST_PLANS: usize = 16;

impl Executor {
    /// Puts the constants of `graph` on `device`.
    ///
    /// # Errors
    ///
    /// As [`Graph::check`].
    pub fn new(graph: impl Into<Arc<Graph>>, device: &Device) -> Result<Self, Error> {
        let graph = graph.into();
        graph.check()?;
        let constants =
            graph.constants.iter().map(|(name, tensor)| (name.clone(), Value::upload(tensor, device))).collect();
        Ok(Self { graph, device: device.clone(), constants, plans: Mutex::default() })
    }

    /// The graph.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Values of all outputs for the given inputs, in the order of the graph.
    ///
    /// # Errors
    ///
    /// When an input does not have the shape or element type that the graph declares, or a node fails.
    pub fn forward(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let values = inputs.iter().map(|input| Value::upload(&Arc::new(input.clone()), &self.device)).collect();
        let outputs = self.run(values, &HashMap::new(), Mode::default())?.outputs;
        let read = |value: &Value| value.to_host().map(|tensor| tensor.as_ref().clone());
        outputs.iter().map(read).collect::<Result<_, _>>().map_err(|reason| Error::graph("outputs", "values", reason))
    }

    /// Values of all outputs, and the gradient of the sum of the first output by each float input.
    ///
    /// # Errors
    ///
    /// As [`Executor::forward`], and [`Error::NoGradient`] where the output does not depend smoothly on an input.
    pub fn forward_with_gradients(&self, inputs: &[Tensor]) -> Result<(Vec<Tensor>, Vec<Option<Tensor>>), Error> {
        let mut leaves = Vec::with_capacity(inputs.len());
        let mut values = Vec::with_capacity(inputs.len());
        for input in inputs {
            let value = Value::upload(&Arc::new(input.clone()), &self.device);
            if let Value::Device(tensor, element) = value {
                let leaf = tensor.tracked();
                leaves.push(Some(leaf.clone()));
                values.push(Value::Device(leaf, element));
            } else {
                leaves.push(None);
                values.push(value);
            }
        }
        let execution = self.run(values, &HashMap::new(), Mode::default())?;
        let read = |value: &Value| value.to_host().map(|tensor| tensor.as_ref().clone());
        let failed = |reason| Error::graph("outputs", "values", reason);
        let outputs: Vec<Tensor> = execution.outputs.iter().map(read).collect::<Result<_, _>>().map_err(failed)?;
        let Some(Value::Device(first, _)) = execution.outputs.first().filter(|value| value.is_tracked()) else {
            return Err(no_gradient("the inputs", &execution.cuts));
        };
        let mut gradients = first.total().backward();
        let mut result = Vec::with_capacity(inputs.len());
        for (leaf, input) in leaves.into_iter().zip(inputs) {
            result.push(match leaf.and_then(|leaf| leaf.gradient(&mut gradients)) {
                Some(gradient) => {
                    let values = gradient.to_floats().map_err(failed)?;
                    Some(Tensor::floats(input.shape(), values).map_err(failed)?)
                }
                None => None,
            });
        }
        Ok((outputs, result))
    }

    /// What is known about every value for inputs of the given shapes, by name.
    ///
    /// # Errors
    ///
    /// When the shapes do not fit the graph.
    pub fn facts(&self, shapes: &[Vec<usize>]) -> Result<BTreeMap<String, Fact>, Error> {
        Ok(self.plan(shapes)?.facts.clone())
    }

    /// Multiplications with additions of one run on inputs of the given shapes.
    ///
    /// # Errors
    ///
    /// When the shapes do not fit the graph.
    pub fn multiplications(&self, shapes: &[Vec<usize>]) -> Result<u64, Error> {
        Ok(self.plan(shapes)?.multiplications)
    }

    /// Runs the graph. `replaced` stands in for the graph's constants of the same names: tracked parameters in training.
    pub(crate) fn run(
        &self,
        inputs: Vec<Value>,
        replaced: &HashMap<String, Value>,
        mode: Mode,
    ) -> Result<Execution, Error> {
        let shapes: Vec<Vec<usize>> = inputs.iter().map(Value::shape).collect();
        for (input, value) in self.graph.inputs.iter().zip(&inputs) {
            if value.element() != input.element {
                return Err(Error::graph(
                    format!("element type of input `{}`", input.name),
                    input.element,
                    value.element(),
                ));
            }
        }
        let plan = self.plan(&shapes)?;
        let mut values: Vec<Option<Value>> = vec![None; plan.slots];
        for (slot, value) in plan.inputs.iter().zip(inputs) {
            values[*slot] = Some(value);
        }
        for (slot, name) in &plan.constants {
            values[*slot] = replaced.get(name).or_else(|| self.constants.get(name)).cloned();
        }
        for (slot, value) in &plan.folded {
            values[*slot] = Some(value.clone());
        }
        let mut execution = Execution { outputs: Vec::new(), statistics: Vec::new(), cuts: Vec::new() };
        for step in &plan.steps {
            let node = &self.graph.nodes[step.node];
            let taken: Vec<Option<Value>> =
                step.inputs.iter().map(|slot| slot.and_then(|slot| values[slot].clone())).collect();
            for slot in &step.finished {
                values[*slot] = None;
            }
            let at_run_time = if step.facts.is_some() {
                None
            } else {
                let facts: Result<Vec<Option<Fact>>, _> =
                    taken.iter().map(|value| value.as_ref().map(fact_of).transpose()).collect();
                let inferred =
                    facts.and_then(|facts| node.operator.infer(&Facts { inputs: &facts, outputs: node.outputs.len() }));
                let inferred = inferred.map_err(|reason| node.error(reason))?;
                afford(|| format!("node `{}`", node.name), bytes_made(&node.operator, &inferred))?;
                Some(inferred)
            };
            let facts = step.facts.as_deref().or(at_run_time.as_deref()).unwrap_or_default();
            let facts = &facts[..facts.len().min(step.outputs.len())];
            let seed = mode.dropout.map(|seed| seed.stream(step.node as u64));
            let arguments = Arguments { values: &taken, device: &self.device, training: seed };
            let results = match &node.operator {
                Operator::BatchNormalization(operator) if mode.batch_statistics => {
                    let (y, mean, variance) =
                        operator.forward_training(&arguments).map_err(|reason| node.error(reason))?;
                    for (offset, statistic) in [mean, variance].into_iter().enumerate() {
                        let name = node.inputs[BatchNormalization::MEAN + offset].clone();
                        execution.statistics.push((name, operator.momentum, statistic));
                    }
                    vec![y]
                }
                operator => operator.forward(&arguments, facts).map_err(|reason| node.error(reason))?,
            };
            if taken.iter().flatten().any(Value::is_tracked) && !results.iter().any(Value::is_tracked) {
                execution.cuts.push(format!("`{}` ({})", node.name, node.operator.name()));
            }
            for (slot, value) in step.outputs.iter().zip(results) {
                if let Some(slot) = *slot
                    && !step.finished.contains(&slot)
                {
                    values[slot] = Some(value);
                }
            }
        }
        for (slot, name) in plan.outputs.iter().zip(&self.graph.outputs) {
            let value = values[*slot].clone();
            execution.outputs.push(value.ok_or_else(|| Error::graph(format!("output `{name}`"), "a value", "none"))?);
        }
        Ok(execution)
    }

    /// The plan for inputs of these shapes, made once.
    pub(crate) fn plan(&self, shapes: &[Vec<usize>]) -> Result<Arc<Plan>, Error> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(shapes) {
            return Ok(plan.clone());
        }
        let facts = check_inputs(&self.graph.inputs, shapes)?;
        let plan = Arc::new(Plan::new(&self.graph, &facts, &self.device)?);
        afford(|| format!("network `{}`", self.graph.name), plan.greatest_bytes)?;
        if plans.len() >= MOST_PLANS {
            plans.clear();
        }
        plans.insert(shapes.to_vec(), plan.clone());
        Ok(plan)
    }
}

pub(crate) fn no_gradient(wanted: &str, cuts: &[String]) -> Error {
    let cut = if cuts.is_empty() { "the output, which does not depend on them".into() } else { cuts.join(", ") };
    Error::NoGradient { wanted: wanted.into(), cut }
}

fn check_inputs(inputs: &[Input], shapes: &[Vec<usize>]) -> Result<Vec<Fact>, Error> {
    if shapes.len() != inputs.len() {
        return Err(Error::graph("number of inputs", inputs.len(), shapes.len()));
    }
    let mut symbols: HashMap<&str, usize> = HashMap::new();
    for (input, shape) in inputs.iter().zip(shapes) {
        let Some(declared) = &input.shape else { continue };
        let fits = declared.len() == shape.len()
            && declared.iter().zip(shape).all(|(dimension, &side)| match dimension {
                Dimension::Fixed(fixed) => *fixed == side,
                Dimension::Symbolic(name) if name.is_empty() => true,
                Dimension::Symbolic(name) => *symbols.entry(name.as_str()).or_insert(side) == side,
            });
        if !fits {
            let declared: Vec<String> = declared.iter().map(ToString::to_string).collect();
            return Err(Error::graph(
                format!("shape of input `{}`", input.name),
                format!("[{}]", declared.join(", ")),
                format!("{shape:?}"),
            ));
        }
    }
    Ok(inputs.iter().zip(shapes).map(|(input, shape)| Fact::new(input.element, shape.clone())).collect())
}
