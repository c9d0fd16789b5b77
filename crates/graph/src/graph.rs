//! Networks as data: named nodes, named constants, named inputs and outputs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use nocebo_core::Task;

use crate::operators::{Activation, Operator};
use crate::{ElementType, Error, OperatorError, Tensor};

/// One side of an input's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Known in the file.
    Fixed(usize),
    /// Chosen by the caller, such as the batch; the name is only for people.
    Symbolic(String),
}

impl std::fmt::Display for Dimension {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(side) => write!(formatter, "{side}"),
            Self::Symbolic(name) if name.is_empty() => formatter.write_str("?"),
            Self::Symbolic(name) => formatter.write_str(name),
        }
    }
}

/// An input of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Name of the value.
    pub name: String,
    /// Shape; `None` where the file does not say.
    pub shape: Option<Vec<Dimension>>,
    /// Element type.
    pub element: ElementType,
}

impl Input {
    /// A `float` input of samples of shape `sample`, with a free batch size.
    pub fn batch(name: &str, sample: &[usize]) -> Self {
        let sample = sample.iter().map(|&side| Dimension::Fixed(side));
        let shape = std::iter::once(Dimension::Symbolic("batch".into())).chain(sample).collect();
        Self { name: name.into(), shape: Some(shape), element: ElementType::F32 }
    }
}

impl std::fmt::Display for Input {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.name, self.element)?;
        match &self.shape {
            Some(shape) => {
                let sides: Vec<String> = shape.iter().map(ToString::to_string).collect();
                write!(formatter, " [{}]", sides.join(", "))
            }
            None => formatter.write_str(" of any shape"),
        }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Unique name.
    pub name: String,
    /// What it computes.
    pub operator: Operator,
    /// Names of the values it reads; an empty name is an optional input left out.
    pub inputs: Vec<String>,
    /// Names of the values it makes; an empty name is an output that nobody wants.
    pub outputs: Vec<String>,
}

impl Node {
    pub(crate) fn error(&self, reason: OperatorError) -> Error {
        Error::Node { node: self.name.clone(), operator: self.operator.name().into(), reason: Box::new(reason) }
    }
}

/// A network.
///
/// Nodes stand in an order in which every value is made before it is read. [`Graph::check`] holds for every graph that
/// came from [`crate::onnx`] or [`crate::GraphBuilder`]; check again after editing the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Name, for people.
    pub name: String,
    /// What the caller supplies.
    pub inputs: Vec<Input>,
    /// Names of the values that are returned.
    pub outputs: Vec<String>,
    /// Operations in order.
    pub nodes: Vec<Node>,
    /// Values stored with the graph: weights, and constants such as axes and shapes.
    pub constants: BTreeMap<String, Arc<Tensor>>,
    /// Text stored with the graph (`metadata_props` in ONNX).
    pub metadata: BTreeMap<String, String>,
}

/// Nodes whose names begin so prepare the data (normalisation, window, channel repeat) and are never trained.
pub const PREPROCESSING: &str = "preprocessing/";

impl Graph {
    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Names of the float constants that training may change, in name order.
    ///
    /// These are the constants that stand where a layer keeps its weights: kernels, matrices, biases, scales, slopes,
    /// tables. Constants that stand elsewhere (statistics of batch normalisation, axes, scalars) and all constants of
    /// nodes named `preprocessing/...` are not parameters.
    pub fn parameters(&self) -> BTreeSet<&str> {
        let mut parameters = BTreeSet::new();
        let mut other_uses = HashSet::new();
        for node in &self.nodes {
            for (position, name) in node.inputs.iter().enumerate() {
                let Some(constant) = self.constants.get(name) else { continue };
                let trainable = constant.element().is_float()
                    && !node.name.starts_with(PREPROCESSING)
                    && node.operator.has_weight_at(position, constant);
                if trainable {
                    parameters.insert(name.as_str());
                } else {
                    other_uses.insert(name.as_str());
                }
            }
        }
        parameters.retain(|name| !other_uses.contains(name));
        parameters
    }

    /// Number of values in all [`Graph::parameters`].
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|name| self.constants[*name].len()).sum()
    }

    /// Checks that names are unique, that everything read exists and was made before, and that outputs exist.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] with what is missing, or a node that stands in a cycle.
    pub fn check(&self) -> Result<(), Error> {
        let mut made: HashSet<&str> = HashSet::new();
        let named = self.inputs.iter().map(|input| input.name.as_str());
        for name in named.chain(self.constants.keys().map(String::as_str)) {
            if name.is_empty() || !made.insert(name) {
                return Err(Error::graph(
                    "names of inputs and constants",
                    "each once and not empty",
                    format!("`{name}`"),
                ));
            }
        }
        let mut node_names = HashSet::new();
        for node in &self.nodes {
            if !node_names.insert(node.name.as_str()) {
                return Err(Error::graph("names of nodes", "each once", format!("`{}` twice", node.name)));
            }
            if let Some(missing) = node.inputs.iter().find(|name| !name.is_empty() && !made.contains(name.as_str())) {
                let reason = OperatorError::mismatch(
                    "an input",
                    "a graph input, a constant or the output of an earlier node",
                    format!("`{missing}`"),
                );
                return Err(node.error(reason));
            }
            for name in node.outputs.iter().filter(|name| !name.is_empty()) {
                if !made.insert(name) {
                    return Err(node.error(OperatorError::mismatch(
                        "an output",
                        "a name of its own",
                        format!("`{name}` twice"),
                    )));
                }
            }
        }
        if self.outputs.is_empty() {
            return Err(Error::graph("outputs of the graph", "at least one", "none"));
        }
        match self.outputs.iter().find(|name| !made.contains(name.as_str())) {
            Some(missing) => {
                Err(Error::graph("an output of the graph", "a value that some node makes", format!("`{missing}`")))
            }
            None => Ok(()),
        }
    }

    /// Puts the nodes in an order in which every value is made before it is read; stable for nodes already in order.
    ///
    /// # Errors
    ///
    /// [`Error::Graph`] naming the nodes that read each other in a cycle.
    pub fn sort(&mut self) -> Result<(), Error> {
        let makers: HashMap<&str, usize> = self
            .nodes
            .iter()
            .enumerate()
            .flat_map(|(index, node)| node.outputs.iter().map(move |name| (name.as_str(), index)))
            .filter(|(name, _)| !name.is_empty())
            .collect();
        let mut waiting: Vec<usize> = vec![0; self.nodes.len()];
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for maker in node.inputs.iter().filter_map(|name| makers.get(name.as_str())) {
                waiting[index] += 1;
                readers[*maker].push(index);
            }
        }
        let mut ready: BTreeSet<usize> = (0..self.nodes.len()).filter(|&index| waiting[index] == 0).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(index) = ready.pop_first() {
            order.push(index);
            for &reader in &readers[index] {
                waiting[reader] -= 1;
                if waiting[reader] == 0 {
                    ready.insert(reader);
                }
            }
        }
        if order.len() < self.nodes.len() {
            let stuck = (0..self.nodes.len()).filter(|&index| waiting[index] > 0);
            let names: Vec<&str> = stuck.take(5).map(|index| self.nodes[index].name.as_str()).collect();
            return Err(Error::graph(
                "order of the nodes",
                "no cycle",
                format!("a cycle through {}", names.join(", ")),
            ));
        }
        let mut nodes: Vec<Option<Node>> = std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        self.nodes = order.into_iter().filter_map(|index| nodes[index].take()).collect();
        Ok(())
    }

    /// The graph without the `Softmax` or `Sigmoid` that ends it where it returns probabilities: models answer with logits.
    ///
    /// Only the first output is looked at. A graph that ends otherwise is returned as it is.
    #[must_use]
    pub fn up_to_logits(&self, task: &Task) -> Self {
        let mut graph = self.clone();
        let last = self.outputs.first().and_then(|name| self.nodes.iter().find(|node| node.outputs.contains(name)));
        if let (Some(last), Some(output)) = (last, graph.outputs.first_mut()) {
            let exclusive = match task {
                Task::MultiClass { .. } | Task::Ordinal { .. } => true,
                Task::Regression { .. } => return graph,
                Task::Segmentation(segmentation) => segmentation.threshold.is_none(),
                _ => false,
            };
            let probabilities = match &last.operator {
                Operator::Softmax(softmax) => !softmax.logarithm && exclusive,
                Operator::Activation(Activation::Sigmoid) => !exclusive,
                _ => false,
            };
            if probabilities {
                output.clone_from(&last.inputs[0]);
                graph.prune();
            }
        }
        graph
    }

    /// Removes nodes and constants on which no output depends.
    pub fn prune(&mut self) {
        let mut needed: HashSet<String> = self.outputs.iter().cloned().collect();
        let mut kept: Vec<Node> = Vec::with_capacity(self.nodes.len());
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.outputs.iter().any(|name| needed.contains(name)) {
                needed.extend(node.inputs.iter().cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
        self.constants.retain(|name, _| needed.contains(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::Unary;

    fn relu(name: &str, from: &str, to: &str) -> Node {
        Node {
            name: name.into(),
            operator: Operator::Unary(Unary::Abs),
            inputs: vec![from.into()],
            outputs: vec![to.into()],
        }
    }

    fn graph(nodes: Vec<Node>) -> Graph {
        Graph { inputs: vec![Input::batch("x", &[3])], outputs: vec!["y".into()], nodes, ..Graph::default() }
    }

    #[test]
    fn nodes_are_sorted_and_cycles_are_named() {
        let mut unordered = graph(vec![relu("second", "h", "y"), relu("first", "x", "h")]);
        assert!(unordered.check().is_err());
        unordered.sort().unwrap();
        unordered.check().unwrap();
        assert_eq!(unordered.nodes[0].name, "first");

        let mut cycle = graph(vec![relu("a", "h", "y"), relu("b", "y", "h")]);
        assert!(cycle.sort().unwrap_err().to_string().contains("a, b"));
    }

    #[test]
    fn duplicate_and_missing_names_are_refused() {
        assert!(graph(vec![relu("a", "x", "y"), relu("a", "x", "z")]).check().is_err());
        assert!(graph(vec![relu("a", "x", "y"), relu("b", "x", "y")]).check().is_err());
        assert!(graph(vec![relu("a", "x", "x")]).check().is_err());
        assert!(graph(vec![relu("a", "unknown", "y")]).check().unwrap_err().to_string().contains("`a`"));
        assert!(graph(vec![relu("a", "x", "z")]).check().is_err());
    }

    #[test]
    fn pruning_drops_what_no_output_reads() {
        let mut pruned = graph(vec![relu("a", "x", "y"), relu("b", "x", "z")]);
        pruned.constants.insert("unused".into(), Arc::new(Tensor::scalar(1.0)));
        pruned.prune();
        assert_eq!((pruned.nodes.len(), pruned.constants.len()), (1, 0));
    }
}
