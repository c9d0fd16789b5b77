//! What is known about a graph before it runs: shapes, and values that follow from shapes and constants alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::operators::{Arguments, Fact, Facts, Operator};
use crate::tensor::room;
use crate::value::Value;
use crate::{Device, ElementType, Error, Graph, OperatorError, Tensor};

/// Most elements of all folded values together: 2^28, 1 GiB of floats. What exceeds it is computed in each run.
const MOST_FOLDED: usize = 1 << 28;

/// Most elements of a float that is read back from the device because a shape may depend on it (scales, limits).
const MOST_READ_BACK: usize = 1 << 12;

/// One node, with values as slots of a table.
#[derive(Debug)]
pub(crate) struct Step {
    /// Index of the node in the graph.
    pub(crate) node: usize,
    pub(crate) inputs: Vec<Option<usize>>,
    pub(crate) outputs: Vec<Option<usize>>,
    /// Facts about the outputs; `None` where they are only known when the graph runs.
    pub(crate) facts: Option<Vec<Fact>>,
    /// Slots that nobody reads after this step.
    pub(crate) finished: Vec<usize>,
}

/// How a graph runs on inputs of given shapes.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) slots: usize,
    /// Slots of the graph's inputs.
    pub(crate) inputs: Vec<usize>,
    /// Slots of the graph's outputs.
    pub(crate) outputs: Vec<usize>,
    /// Slots and names of constants that some step reads.
    pub(crate) constants: Vec<(usize, String)>,
    /// Slots and values that were computed once.
    pub(crate) folded: Vec<(usize, Value)>,
    /// What is known about every named value.
    pub(crate) facts: BTreeMap<String, Fact>,
    /// Multiplications with additions in one run.
    pub(crate) multiplications: u64,
    /// Bytes of the values of one run that are alive at the same time; a gradient keeps more.
    pub(crate) greatest_bytes: u64,
}

/// Names of constants that may change while a graph is trained: parameters, and running statistics.
pub(crate) fn changeable(graph: &Graph) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = graph.parameters().into_iter().map(str::to_owned).collect();
    for node in &graph.nodes {
        if let Operator::BatchNormalization(_) = node.operator {
            names.extend(node.inputs.iter().skip(3).cloned());
        }
    }
    names
}

impl Plan {
    /// Checks the graph for inputs with the given facts and works out everything that does not depend on their values.
    ///
    /// # Errors
    ///
    /// [`Error::Node`] for the first node whose inputs do not fit.
    pub(crate) fn new(graph: &Graph, inputs: &[Fact], device: &Device) -> Result<Self, Error> {
        Builder::new(graph, inputs, device).build()
    }
}

struct Builder<'a> {
    graph: &'a Graph,
    device: &'a Device,
    slots: HashMap<&'a str, usize>,
    facts: Vec<Option<Fact>>,
    folded: HashMap<usize, Value>,
    folded_elements: usize,
    /// The constants of the graph in order; `None` for those that training may change.
    constants: Vec<Option<&'a Arc<Tensor>>>,
}

impl<'a> Builder<'a> {
    fn new(graph: &'a Graph, inputs: &[Fact], device: &'a Device) -> Self {
        let mut slots = HashMap::new();
        let mut facts = Vec::new();
        for (input, fact) in graph.inputs.iter().zip(inputs) {
            slots.insert(input.name.as_str(), facts.len());
            facts.push(Some(fact.clone()));
        }
        let changeable = changeable(graph);
        let mut constants = Vec::new();
        for (name, constant) in &graph.constants {
            slots.insert(name.as_str(), facts.len());
            let mut fact = Fact::known(constant);
            if changeable.contains(name) {
                fact.value = None;
            }
            constants.push(fact.value.as_ref().map(|_| constant));
            facts.push(Some(fact));
        }
        Self { graph, device, slots, facts, folded: HashMap::new(), folded_elements: 0, constants }
    }

    fn slot_of_output(&mut self, name: &'a str) -> Option<usize> {
        if name.is_empty() {
            return None;
        }
        let slot = self.facts.len();
        self.slots.insert(name, slot);
        self.facts.push(None);
        Some(slot)
    }

    fn build(mut self) -> Result<Plan, Error> {
        let graph = self.graph;
        let mut steps = Vec::new();
        let mut multiplications = 0u64;
        for (index, node) in graph.nodes.iter().enumerate() {
            let inputs: Vec<Option<usize>> =
                node.inputs.iter().map(|name| self.slots.get(name.as_str()).copied()).collect();
            let facts: Vec<Option<Fact>> =
                inputs.iter().map(|slot| slot.and_then(|slot| self.facts[slot].clone())).collect();
            let outputs: Vec<Option<usize>> = node.outputs.iter().map(|name| self.slot_of_output(name)).collect();
            let unknown = inputs
                .iter()
                .zip(&facts)
                .any(|(slot, fact)| slot.is_some() && fact.as_ref().is_none_or(|fact| fact.shape.is_none()));
            let known = Facts { inputs: &facts, outputs: node.outputs.len() };
            let inferred = if unknown { Err(OperatorError::dynamic("an input")) } else { node.operator.infer(&known) };
            let step = match inferred {
                Err(OperatorError::Dynamic { .. }) => {
                    Step { node: index, inputs, outputs, facts: None, finished: Vec::new() }
                }
                Err(reason) => return Err(node.error(reason)),
                Ok(inferred) => {
                    let own = node.operator.multiplications(&known, &inferred);
                    multiplications = own.saturating_add(multiplications);
                    let step = Step { node: index, inputs, outputs, facts: Some(inferred), finished: Vec::new() };
                    self.fold(&step)?;
                    step
                }
            };
            let all_folded = step.outputs.iter().flatten().all(|slot| self.folded.contains_key(slot));
            if !all_folded || step.outputs.iter().flatten().next().is_none() {
                steps.push(step);
            }
        }
        Ok(self.finish(steps, multiplications))
    }

    /// Records what is known about the outputs of a step; computes them where all the inputs are constant.
    fn fold(&mut self, step: &Step) -> Result<(), Error> {
        let node = &self.graph.nodes[step.node];
        let facts = step.facts.as_deref().unwrap_or_default();
        for (slot, fact) in step.outputs.iter().zip(facts) {
            let Some(slot) = *slot else { continue };
            if let Some(value) = &fact.value {
                self.folded.insert(slot, Value::upload(value, self.device));
            }
            self.facts[slot] = Some(fact.clone());
        }
        let values: Option<Vec<Option<Value>>> =
            step.inputs.iter().map(|slot| slot.map_or(Some(None), |slot| self.constant(slot).map(Some))).collect();
        let elements: usize =
            facts.iter().flat_map(|fact| &fact.shape).map(|shape| shape.iter().product::<usize>()).sum();
        let Some(values) = values else { return Ok(()) };
        if self.folded_elements + elements > MOST_FOLDED {
            return Ok(());
        }
        self.folded_elements += elements;
        let arguments = Arguments { values: &values, device: self.device, training: None };
        let wanted = &facts[..facts.len().min(step.outputs.len())];
        let results = node.operator.forward(&arguments, wanted).map_err(|reason| node.error(reason))?;
        for (slot, value) in step.outputs.iter().zip(results) {
            let Some(slot) = *slot else { continue };
            let readable = match &value {
                Value::Host(_) => true,
                Value::Device(tensor, _) => tensor.len() <= MOST_READ_BACK,
            };
            if let Some(fact) = &mut self.facts[slot]
                && readable
            {
                fact.value = Some(value.to_host().map_err(|reason| node.error(reason))?);
            }
            self.folded.insert(slot, value);
        }
        Ok(())
    }

    /// The value of a slot that never changes.
    fn constant(&self, slot: usize) -> Option<Value> {
        if let Some(value) = self.folded.get(&slot) {
            return Some(value.clone());
        }
        let constant = self.constants.get(slot.checked_sub(self.graph.inputs.len())?)?.as_ref()?;
        Some(Value::upload(constant, self.device))
    }

    fn finish(self, mut steps: Vec<Step>, multiplications: u64) -> Plan {
        let outputs: Vec<usize> =
            self.graph.outputs.iter().filter_map(|name| self.slots.get(name.as_str()).copied()).collect();
        let mut last_read: HashMap<usize, usize> = HashMap::new();
        for (index, step) in steps.iter().enumerate() {
            for slot in step.inputs.iter().chain(&step.outputs).flatten() {
                last_read.insert(*slot, index);
            }
        }
        let read: BTreeSet<usize> = last_read.keys().copied().chain(outputs.iter().copied()).collect();
        for slot in read.iter().filter(|slot| !outputs.contains(slot)) {
            if let Some(&index) = last_read.get(slot) {
                steps[index].finished.push(*slot);
            }
        }
        let greatest_bytes = greatest_bytes(&steps, self.graph);
        let first = self.graph.inputs.len();
        let constants = self.graph.constants.keys().enumerate();
        let constants = constants
            .map(|(index, name)| (first + index, name.clone()))
            .filter(|(slot, _)| read.contains(slot))
            .collect();
        let mut folded: Vec<(usize, Value)> = self.folded.into_iter().filter(|(slot, _)| read.contains(slot)).collect();
        folded.sort_by_key(|(slot, _)| *slot);
        let facts = self
            .slots
            .iter()
            .filter_map(|(name, &slot)| Some(((*name).to_owned(), self.facts[slot].clone()?)))
            .collect();
        Plan {
            steps,
            slots: self.facts.len(),
            inputs: (0..first).collect(),
            outputs,
            constants,
            folded,
            facts,
            multiplications,
            greatest_bytes,
        }
    }
}

/// Bytes that a node makes; none where it shows its input in another shape.
pub(crate) fn bytes_made(operator: &Operator, facts: &[Fact]) -> u64 {
    use Operator::{Expand, Flatten, Identity, Reshape, Squeeze, Transpose, Unsqueeze};
    if let Reshape(_) | Flatten(_) | Squeeze(_) | Unsqueeze(_) | Identity(_) | Transpose(_) | Expand(_) = operator {
        return 0;
    }
    let size = |element: ElementType| if element.is_float() { 4 } else { 8 };
    let bytes = |fact: &Fact| Some((room(fact.shape.as_ref()?) as u64).saturating_mul(size(fact.element)));
    facts.iter().filter_map(bytes).fold(0, u64::saturating_add)
}

fn greatest_bytes(steps: &[Step], graph: &Graph) -> u64 {
    let mut sizes: HashMap<usize, u64> = HashMap::new();
    let (mut alive, mut greatest) = (0u64, 0u64);
    for step in steps {
        let operator = &graph.nodes[step.node].operator;
        for (slot, fact) in step.outputs.iter().zip(step.facts.iter().flatten()) {
            if let Some(slot) = *slot {
                let bytes = bytes_made(operator, std::slice::from_ref(fact));
                alive = alive.saturating_add(bytes);
                sizes.insert(slot, bytes);
            }
        }
        greatest = greatest.max(alive);
        let finished: u64 = step.finished.iter().filter_map(|slot| sizes.remove(slot)).sum();
        alive = alive.saturating_sub(finished);
    }
    greatest
}

/// A tensor that stands for values of which only the shape is known.
pub(crate) fn fact_of(value: &Value) -> Result<Fact, OperatorError> {
    let readable = match value {
        Value::Host(_) => true,
        Value::Device(tensor, _) => tensor.len() <= MOST_READ_BACK,
    };
    Ok(Fact {
        element: value.element(),
        shape: Some(value.shape()),
        value: if readable { Some(Arc::clone(&value.to_host()?)) } else { None },
    })
}
