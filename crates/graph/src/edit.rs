//! Changing a network: find nodes, tap a value, insert, replace, cut, fold constants, strip what only training needs.
//!
//! Every change is checked as [`Graph::check`] does; one that fails leaves the graph as it was.
//!
//! ```
//! # use nocebo_core::Seed;
//! # use nocebo_graph::{GraphBuilder, operators::{Activation, Convolution}};
//! let mut b = GraphBuilder::new("tiny", Seed(1));
//! let x = b.input("image", &[1, 8, 8]);
//! let x = b.convolution("stem", &x, (1, 4), 3, Convolution::new(2, 1, 1));
//! let x = b.relu("stem.relu", &x);
//! let x = b.global_average("pool", &x);
//! let x = b.linear("head", &x, (4, 2));
//! let mut graph = b.finish(&[&x])?;
//!
//! // A smooth activation instead of ReLU, its features as a second output, probabilities instead of logits.
//! let relu: Vec<String> = graph.find("*.relu").map(|node| node.name.clone()).collect();
//! graph.replace(&relu[0], Activation::Gelu { tanh: false }, &["stem"])?;
//! graph.tap("stem.relu")?;
//! graph.insert_after("head", "probabilities", Activation::Sigmoid, &[])?;
//! assert_eq!(graph.outputs, ["probabilities", "stem.relu"]);
//! assert!(graph.to_string().contains("probabilities: Sigmoid(head)"));
//! # Ok::<(), nocebo_graph::Error>(())
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::operators::{Arguments, Fact, Facts, Identity, Operator, Target};
use crate::plan::changeable;
use crate::value::Value;
use crate::{Device, Error, Graph, Input, Node, OperatorError, Tensor};

/// A constant of more values than this is made by a node in each run instead of being stored, unless it is no larger than
/// what it is made of: files of a few bytes must not become gigabytes.
const MOST_STORED: usize = 1 << 16;

/// Whether `name` is of the form `pattern`, in which `*` stands for any characters and `?` for one.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut place) = (0, 0);
    // Where the last `*` stood, and up to where it reaches so far.
    let mut star: Option<(usize, usize)> = None;
    while place < name.len() {
        match (pattern.get(at), star) {
            (Some('*'), _) => {
                star = Some((at, place));
                at += 1;
            }
            (Some(&wanted), _) if wanted == '?' || wanted == name[place] => {
                at += 1;
                place += 1;
            }
            (_, Some((asterisk, reach))) => {
                star = Some((asterisk, reach + 1));
                at = asterisk + 1;
                place = reach + 1;
            }
            (_, None) => return false,
        }
    }
    pattern[at..].iter().all(|&rest| rest == '*')
}

fn no_value(name: &str) -> Error {
    Error::graph("a value of the graph", "an input, a constant or the output of a node", format!("`{name}`"))
}

impl Graph {
    /// Nodes whose names are of the form `pattern`, in order; `*` stands for any characters and `?` for one.
    pub fn find(&self, pattern: &str) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| matches(pattern, &node.name))
    }

    /// The node that makes a value; `None` for inputs, constants and names that do not exist.
    pub fn maker(&self, value: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.outputs.iter().any(|output| output == value))
    }

    /// Nodes that read a value, in order.
    pub fn readers(&self, value: &str) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.inputs.iter().any(|input| input == value))
    }

    fn has_value(&self, value: &str) -> bool {
        self.inputs.iter().any(|input| input.name == value)
            || self.constants.contains_key(value)
            || (!value.is_empty() && self.maker(value).is_some())
    }

    /// Carries out `change` on a copy, which takes the graph's place where it is well formed.
    fn changed(&mut self, change: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        let mut copy = self.clone();
        change(&mut copy)?;
        copy.sort()?;
        copy.check()?;
        *self = copy;
        Ok(())
    }

    /// Returns a value as a further output, behind those there are; does nothing where it is returned already.
    ///
    /// # Errors
    ///
    /// When there is no such value.
    pub fn tap(&mut self, value: &str) -> Result<(), Error> {
        if !self.has_value(value) {
            return Err(no_value(value));
        }
        if !self.outputs.iter().any(|output| output == value) {
            self.outputs.push(value.to_owned());
        }
        Ok(())
    }

    /// Puts a node behind a value: it reads the value, then `others`, and whoever read the value (nodes and outputs of
    /// the graph) reads the new node's output, which is named like the node.
    ///
    /// # Errors
    ///
    /// When there is no such value, the name is taken, or `others` depend on the value.
    pub fn insert_after(
        &mut self,
        value: &str,
        name: &str,
        operator: impl Into<Operator>,
        others: &[&str],
    ) -> Result<(), Error> {
        if !self.has_value(value) {
            return Err(no_value(value));
        }
        self.changed(|graph| {
            graph.redirect(value, name);
            let inputs = std::iter::once(value).chain(others.iter().copied()).map(str::to_owned).collect();
            let outputs = vec![name.to_owned()];
            graph.nodes.push(Node { name: name.to_owned(), operator: operator.into(), inputs, outputs });
            Ok(())
        })
    }

    /// Lets a node compute something else from the given values; its outputs keep their names.
    ///
    /// # Errors
    ///
    /// When there is no such node or value, or the values depend on the node.
    pub fn replace(&mut self, node: &str, operator: impl Into<Operator>, inputs: &[&str]) -> Result<(), Error> {
        self.changed(|graph| {
            let Some(found) = graph.nodes.iter_mut().find(|other| other.name == node) else {
                return Err(Error::graph("a node of the graph", "the name of one", format!("`{node}`")));
            };
            found.operator = operator.into();
            found.inputs = inputs.iter().map(|&input| input.to_owned()).collect();
            Ok(())
        })
    }

    /// Keeps what leads up to a value, which becomes the only output.
    ///
    /// # Errors
    ///
    /// When there is no such value.
    pub fn cut_after(&mut self, value: &str) -> Result<(), Error> {
        if !self.has_value(value) {
            return Err(no_value(value));
        }
        self.outputs = vec![value.to_owned()];
        self.prune();
        Ok(())
    }

    /// Keeps what follows from a value, which becomes an input described by `input` (of the value's name); inputs that
    /// nobody reads any more are dropped.
    ///
    /// # Errors
    ///
    /// When no node makes that value.
    pub fn cut_before(&mut self, input: Input) -> Result<(), Error> {
        self.changed(|graph| {
            let maker = graph.maker(&input.name).map(|node| node.name.clone());
            let maker = maker.ok_or_else(|| no_value(&input.name))?;
            for node in graph.nodes.iter_mut().filter(|node| node.name == maker) {
                for output in node.outputs.iter_mut().filter(|output| **output == input.name) {
                    output.clear();
                }
            }
            graph.prune();
            let read: Vec<String> = graph.nodes.iter().flat_map(|node| node.inputs.clone()).collect();
            graph.inputs.retain(|old| read.contains(&old.name) || graph.outputs.contains(&old.name));
            graph.inputs.push(input);
            Ok(())
        })
    }

    /// Computes every node that reads nothing but constants once and for all. Weights that training may change stay weights,
    /// and large values that come from small ones stay nodes.
    ///
    /// # Errors
    ///
    /// When such a node cannot be computed.
    pub fn fold_constants(&mut self) -> Result<(), Error> {
        let changeable = changeable(self);
        let device = Device::flex();
        for node in std::mem::take(&mut self.nodes) {
            let foldable = node
                .inputs
                .iter()
                .all(|name| name.is_empty() || (self.constants.contains_key(name) && !changeable.contains(name)));
            let results = if foldable { self.computed(&node, &device) } else { Ok(None) };
            match results {
                Ok(Some(results)) => {
                    let named = node.outputs.iter().cloned().zip(results).filter(|(name, _)| !name.is_empty());
                    self.constants.extend(named);
                }
                Ok(None) | Err(OperatorError::Dynamic { .. }) => self.nodes.push(node),
                Err(reason) => return Err(node.error(reason)),
            }
        }
        self.prune();
        Ok(())
    }

    /// The outputs of a node that reads only constants; `None` where they would be too large to store.
    fn computed(&self, node: &Node, device: &Device) -> Result<Option<Vec<Arc<Tensor>>>, OperatorError> {
        let constants: Vec<Option<&Arc<Tensor>>> = node.inputs.iter().map(|name| self.constants.get(name)).collect();
        let facts: Vec<Option<Fact>> = constants.iter().map(|constant| constant.map(Fact::known)).collect();
        let facts = node.operator.infer(&Facts { inputs: &facts, outputs: node.outputs.len() })?;
        let facts = &facts[..facts.len().min(node.outputs.len())];
        let made: usize = facts.iter().flat_map(|fact| &fact.shape).map(|shape| shape.iter().product::<usize>()).sum();
        let read: usize = constants.iter().flatten().map(|constant| constant.len()).sum();
        if made > MOST_STORED.max(read) {
            return Ok(None);
        }
        let values: Vec<Option<Value>> =
            constants.iter().map(|constant| constant.map(|constant| Value::upload(constant, device))).collect();
        let results = node.operator.forward(&Arguments { values: &values, device, training: None }, facts)?;
        results.iter().map(Value::to_host).collect::<Result<_, _>>().map(Some)
    }

    /// Removes the nodes that do something in training only: `Dropout`, and `Identity`. A node that makes an output of the
    /// graph becomes an `Identity`, so that the output keeps its name.
    pub fn strip_training_nodes(&mut self) {
        let mut instead: HashMap<String, String> = HashMap::new();
        for mut node in std::mem::take(&mut self.nodes) {
            for input in &mut node.inputs {
                if let Some(original) = instead.get(input) {
                    input.clone_from(original);
                }
            }
            let training_only = matches!(node.operator, Operator::Dropout(_) | Operator::Identity(_));
            if !training_only || node.outputs.iter().skip(1).any(|mask| !mask.is_empty()) {
                self.nodes.push(node);
            } else if self.outputs.contains(&node.outputs[0]) {
                node.inputs.truncate(1);
                node.operator = Identity.into();
                self.nodes.push(node);
            } else {
                instead.insert(node.outputs[0].clone(), node.inputs[0].clone());
            }
        }
        self.prune();
    }

    /// Lets nodes and outputs that read `from` read `to`.
    fn redirect(&mut self, from: &str, to: &str) {
        let inputs = self.nodes.iter_mut().flat_map(|node| &mut node.inputs);
        for name in inputs.chain(&mut self.outputs).filter(|name| *name == from) {
            to.clone_into(name);
        }
    }
}

/// Inputs, then one line a node as `output: Operator(inputs; attributes)`, then outputs.
impl fmt::Display for Graph {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for input in &self.inputs {
            writeln!(formatter, "{input}")?;
        }
        for node in &self.nodes {
            let mut target = Target {
                opset: node.operator.least_opset().max(crate::onnx::WRITTEN_OPSET),
                attributes: BTreeMap::new(),
                inputs: node.inputs.clone(),
                outputs: node.outputs.len(),
                constants: &self.constants,
            };
            // What cannot be written in this opset is shown without its attributes.
            let attributes = if node.operator.write(&mut target).is_ok() { target.attributes } else { BTreeMap::new() };
            let (outputs, inputs) = (node.outputs.join(", "), node.inputs.join(", "));
            write!(formatter, "{outputs}: {}({inputs}", node.operator.name())?;
            attributes.iter().try_for_each(|(name, value)| write!(formatter, "; {name} = {value}"))?;
            formatter.write_str(")\n")?;
        }
        writeln!(formatter, "returns {}", self.outputs.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GraphBuilder;
    use crate::operators::{Activation, Arithmetic, Convolution, Dropout, Gemm, Reshape, Unary};
    use crate::{Executor, onnx};
    use nocebo_core::Seed;

    fn tiny() -> Graph {
        let mut b = GraphBuilder::new("tiny", Seed(1));
        let x = b.input("image", &[1, 4, 4]);
        let x = b.convolution("stem", &x, (1, 2), 3, Convolution::new(2, 1, 1));
        let x = b.relu("stem.relu", &x);
        let x = b.global_average("pool", &x);
        let x = b.linear("head", &x, (2, 3));
        b.finish(&[&x]).unwrap()
    }

    fn node(name: &str, operator: impl Into<Operator>, inputs: &[&str], outputs: &[&str]) -> Node {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Node { name: name.into(), operator: operator.into(), inputs: owned(inputs), outputs: owned(outputs) }
    }

    fn image() -> Tensor {
        Tensor::floats(&[1, 1, 4, 4], (0..16).map(|value| value as f32 * 0.1 - 0.7).collect()).unwrap()
    }

    fn run(graph: &Graph, input: &Tensor) -> Vec<Vec<f32>> {
        let outputs =
            Executor::new(graph.clone(), &Device::flex()).unwrap().forward(std::slice::from_ref(input)).unwrap();
        outputs.iter().map(|output| output.to_f32().into_owned()).collect()
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name) in
            [("*", ""), ("a*c", "abbc"), ("*.relu", "stem.relu"), ("?b", "ab"), ("a**", "a"), ("é?", "éa")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "a"), ("a", "ab"), ("*b", "ba"), ("?", ""), ("a*b*c", "acb")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        let graph = tiny();
        assert_eq!(graph.find("stem*").map(|node| node.name.as_str()).collect::<Vec<_>>(), ["stem", "stem.relu"]);
        assert_eq!(graph.maker("stem.relu").unwrap().name, "stem.relu");
        assert_eq!(graph.readers("stem").count(), 1);
    }

    #[test]
    fn a_tap_is_a_further_output() {
        let mut graph = tiny();
        let plain = run(&graph, &image());
        graph.tap("stem").unwrap();
        graph.tap("stem").unwrap();
        let tapped = run(&graph, &image());
        assert_eq!((tapped.len(), &tapped[0], tapped[1].len()), (2, &plain[0], 32));
        assert!(graph.tap("nothing").is_err() && graph.tap("").is_err());
    }

    #[test]
    fn an_inserted_node_stands_before_all_readers() {
        let mut graph = tiny();
        let mut expected = tiny();
        expected.replace("stem.relu", Activation::Tanh, &["stem"]).unwrap();
        // tanh of the negated negation.
        graph.replace("stem.relu", Activation::Tanh, &["stem"]).unwrap();
        graph.insert_after("stem", "minus", Unary::Neg, &[]).unwrap();
        assert_ne!(run(&graph, &image()), run(&expected, &image()));
        graph.insert_after("minus", "plus", Unary::Neg, &[]).unwrap();
        assert_eq!(run(&graph, &image()), run(&expected, &image()));
        // Behind an output the new value is the output; behind an input everyone reads the new value.
        graph.insert_after("head", "scaled", Arithmetic::Mul, &["head"]).unwrap();
        assert_eq!(graph.outputs, ["scaled"]);
        let squared: Vec<f32> = run(&expected, &image())[0].iter().map(|value| value * value).collect();
        assert_eq!(run(&graph, &image())[0], squared);
        let before = graph.clone();
        for (value, name, other) in
            [("nothing", "n", "stem"), ("stem", "head", "stem"), ("stem", "n", "nothing"), ("stem", "n", "head")]
        {
            assert!(graph.insert_after(value, name, Arithmetic::Add, &[other]).is_err(), "{value} {name} {other}");
        }
        assert!(graph.replace("nothing", Unary::Neg, &["stem"]).is_err());
        assert!(graph.replace("stem.relu", Unary::Neg, &["head"]).is_err(), "a cycle");
        assert_eq!(graph, before);
    }

    #[test]
    fn the_two_parts_of_a_cut_make_the_whole() {
        let graph = tiny();
        let (mut first, mut second) = (graph.clone(), graph.clone());
        first.cut_after("stem.relu").unwrap();
        second.cut_before(Input::batch("stem.relu", &[2, 4, 4])).unwrap();
        assert_eq!((first.nodes.len(), second.inputs.len()), (2, 1));
        assert_eq!(first.nodes.len() + second.nodes.len(), graph.nodes.len());
        let middle = Tensor::floats(&[1, 2, 4, 4], run(&first, &image()).remove(0)).unwrap();
        assert_eq!(run(&second, &middle), run(&graph, &image()));
        assert!(first.cut_after("head").is_err());
        assert!(second.cut_before(Input::batch("image", &[1])).is_err());
    }

    #[test]
    fn constants_are_folded_but_weights_and_giants_stay() {
        let mut graph = tiny();
        let stored = |value: Tensor| Arc::new(value);
        graph.constants.insert("two".into(), stored(Tensor::scalar(2.0)));
        graph.constants.insert("sides".into(), stored(Tensor::list(&[1 << 10, 1 << 10])));
        let giant = crate::operators::ConstantOfShape { value: Tensor::scalar(1.0) };
        graph.nodes.insert(0, node("half", Unary::Reciprocal, &["two"], &["half"]));
        graph.nodes.insert(1, node("scaled", Arithmetic::Mul, &["half", "two"], &["one"]));
        graph.nodes.insert(2, node("giant", giant, &["sides"], &["giant"]));
        graph.nodes.push(node("out", Arithmetic::Mul, &["head", "one"], &["out"]));
        graph.outputs = vec!["out".into(), "giant".into()];
        let before = run(&graph, &image());
        let parameters = graph.parameter_count();
        graph.fold_constants().unwrap();
        assert_eq!(graph.find("*").filter(|node| ["half", "scaled"].contains(&node.name.as_str())).count(), 0);
        assert!(graph.node("giant").is_some() && !graph.constants.contains_key("two"));
        assert_eq!((run(&graph, &image()), graph.parameter_count()), (before, parameters));
    }

    #[test]
    fn training_nodes_are_stripped_and_outputs_keep_their_names() {
        let mut graph = tiny();
        graph.insert_after("stem", "drop", Dropout, &[]).unwrap();
        graph.insert_after("drop", "same", Identity, &[]).unwrap();
        graph.insert_after("head", "drop-out", Dropout, &[]).unwrap();
        let masked = node("masked", Dropout, &["image"], &["masked", "mask"]);
        graph.nodes.push(masked);
        graph.outputs.push("mask".into());
        let before = run(&graph, &image());
        graph.strip_training_nodes();
        graph.check().unwrap();
        assert!(graph.node("drop").is_none() && graph.node("same").is_none());
        assert_eq!(graph.outputs, ["drop-out", "mask"]);
        assert!(matches!(graph.node("drop-out").unwrap().operator, Operator::Identity(_)));
        assert!(matches!(graph.node("masked").unwrap().operator, Operator::Dropout(_)));
        assert_eq!(run(&graph, &image()), before);
        assert_eq!(run(&onnx::read_bytes(&onnx::to_bytes(&graph).unwrap()).unwrap(), &image()), before);
    }

    #[test]
    fn a_graph_prints_its_nodes() {
        let mut graph = Graph {
            inputs: vec![Input::batch("x", &[2])],
            outputs: vec!["y".into()],
            nodes: vec![
                node("flat", Reshape { allow_zero: false }, &["x", "shape"], &["f"]),
                node("head", Gemm { transpose_b: true, ..Gemm::default() }, &["f", "w"], &["y"]),
            ],
            ..Graph::default()
        };
        graph.constants.insert("shape".into(), Arc::new(Tensor::list(&[0, -1])));
        graph.constants.insert("w".into(), Arc::new(Tensor::floats(&[1, 2], vec![0.0; 2]).unwrap()));
        let text = graph.to_string();
        assert!(text.starts_with("x: float [batch, 2]\nf: Reshape(x, shape)\n"), "{text}");
        assert!(
            text.contains("y: Gemm(f, w;") && text.contains("; transB = 1") && text.ends_with("returns y\n"),
            "{text}"
        );
    }
}
