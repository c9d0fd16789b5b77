//! What a person wants to know about a network before attacking it.

use std::collections::{BTreeMap, BTreeSet};

use crate::operators::{Activation, Derivative, Fact, Operator};
use crate::{Device, Dimension, Executor, Graph, Node, Tensor};

/// What is known about a network without running it.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// ONNX operators and how many nodes have each.
    pub operators: BTreeMap<&'static str, usize>,
    /// Values that training may change.
    pub parameters: usize,
    /// Values of all other constants.
    pub other_constants: usize,
    /// Shapes of the outputs for one sample; `None` where they depend on sides that the file leaves open.
    pub outputs: Vec<Option<Vec<usize>>>,
    /// Multiplications with additions for one sample, under the same condition.
    pub multiplications: Option<u64>,
    /// What the first output seems to be, in words: a guess from its shape and the node that makes it.
    pub task: Option<String>,
    /// Nodes between the inputs and the outputs through which the gradient is not exact, by what it is instead.
    pub inexact: BTreeMap<&'static str, Vec<String>>,
    /// The last value of each stage and its shape for one sample: where the size of the values changes next.
    pub taps: Vec<(String, Vec<usize>)>,
    /// Constants that make no sense: weights that are not finite or all 0.
    pub findings: Vec<String>,
}

impl Summary {
    /// Describes a graph for inputs of one sample. Sides that the file leaves open are taken from the spec of the model, if it
    /// has one; without it only the batch is known to be 1.
    pub fn of(graph: &Graph) -> Self {
        let facts = shapes_of_one_sample(graph)
            .and_then(|shapes| Some((Executor::new(graph.clone(), &Device::flex()).ok()?, shapes)))
            .and_then(|(executor, shapes)| {
                Some((executor.facts(&shapes).ok()?, executor.multiplications(&shapes).ok()?))
            });
        let (facts, multiplications) = facts.unzip();
        let facts = facts.unwrap_or_default();
        let mut operators = BTreeMap::new();
        for node in &graph.nodes {
            *operators.entry(node.operator.name()).or_default() += 1;
        }
        let parameters = graph.parameter_count();
        let shape = |name: &String| facts.get(name).and_then(|fact| fact.shape.clone());
        Self {
            operators,
            parameters,
            other_constants: graph.constants.values().map(|constant| constant.len()).sum::<usize>() - parameters,
            outputs: graph.outputs.iter().map(shape).collect(),
            multiplications,
            task: graph.outputs.first().and_then(|output| task(graph, output, &facts)),
            inexact: inexact(graph, &facts),
            taps: taps(graph, &facts),
            findings: findings(graph),
        }
    }
}

fn shapes_of_one_sample(graph: &Graph) -> Option<Vec<Vec<usize>>> {
    let spec = graph.spec().ok().flatten();
    let shape = |input: &crate::Input| -> Option<Vec<usize>> {
        let declared = input.shape.as_ref()?;
        let sides = declared.iter().enumerate().map(|(axis, side)| match side {
            Dimension::Fixed(side) => Some(*side),
            Dimension::Symbolic(_) if axis == 0 => Some(1),
            Dimension::Symbolic(_) => spec.as_ref()?.domain.shape().get(axis - 1).copied(),
        });
        sides.collect()
    };
    graph.inputs.iter().map(shape).collect()
}

/// Classes, labels, maps or values: read off the shape `[batch, channels, ...]` (or `[batch, ..., channels]`) of an output and
/// its last node.
fn task(graph: &Graph, output: &str, facts: &BTreeMap<String, Fact>) -> Option<String> {
    let shape = facts.get(output)?.shape.as_deref()?;
    let image = facts.get(&graph.inputs.first()?.name)?.shape.as_deref()?;
    let last = last_of_meaning(graph, output);
    let (softmax, sigmoid) = match last.map(|node| &node.operator) {
        Some(Operator::Softmax(_)) => (true, false),
        Some(Operator::Activation(Activation::Sigmoid)) => (false, true),
        _ => (false, false),
    };
    let ending = if softmax {
        "softmax"
    } else if sigmoid {
        "sigmoid"
    } else {
        "logits"
    };
    let sides: Vec<usize> = shape.get(1..)?.to_vec();
    Some(match sides.iter().copied().filter(|&side| side > 1).collect::<Vec<_>>().as_slice() {
        [] if sigmoid => "one finding, present or absent (sigmoid)".into(),
        [] => "one number: a logit of present or absent, or a regression".into(),
        &[labels] if sigmoid => format!("{labels} findings, each present or absent (sigmoid)"),
        &[classes] => format!("one of {classes} classes ({ending})"),
        _ => {
            let space = |shape: &[usize], channels_last: bool| {
                let inner = if channels_last { shape.get(1..shape.len() - 1) } else { shape.get(2..) };
                inner.map(<[usize]>::to_vec).unwrap_or_default()
            };
            let channels_last = shape.len() == image.len() && space(shape, true) == space(image, true);
            let channels_first = shape.len() == image.len() && space(shape, false) == space(image, false);
            let channels = if channels_last && !channels_first { shape.last() } else { shape.get(1) };
            match channels {
                _ if shape == image && !softmax && !sigmoid => {
                    "values of the shape of the input: a reconstruction or a map".into()
                }
                Some(classes) if channels_first || channels_last => {
                    format!("a map of {classes} classes, one of them for each place ({ending})")
                }
                _ => format!("values of shape {sides:?}"),
            }
        }
    })
}

/// The node that makes a value, seen through nodes that only move values.
fn last_of_meaning<'a>(graph: &'a Graph, value: &str) -> Option<&'a Node> {
    let mut node = graph.maker(value)?;
    while let Operator::Transpose(_)
    | Operator::Reshape(_)
    | Operator::Flatten(_)
    | Operator::Squeeze(_)
    | Operator::Identity(_) = node.operator
    {
        node = graph.maker(&node.inputs[0])?;
    }
    Some(node)
}

/// Nodes whose inputs follow from the inputs of the graph, whose outputs are not known beforehand, lead to an output, and
/// have no exact derivative.
fn inexact(graph: &Graph, facts: &BTreeMap<String, Fact>) -> BTreeMap<&'static str, Vec<String>> {
    let mut wanted: BTreeSet<&str> = graph.outputs.iter().map(String::as_str).collect();
    for node in graph.nodes.iter().rev() {
        if node.outputs.iter().any(|output| wanted.contains(output.as_str())) {
            wanted.extend(node.inputs.iter().map(String::as_str));
        }
    }
    let mut dependent: BTreeSet<&str> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
    let mut found: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for node in &graph.nodes {
        let known = |name: &String| facts.get(name).is_some_and(|fact| fact.value.is_some());
        let shape_only = matches!(node.operator, Operator::Shape(_) | Operator::Size(_));
        let reads = node.inputs.iter().any(|input| dependent.contains(input.as_str()));
        if !reads || shape_only || node.outputs.iter().all(known) {
            continue;
        }
        dependent.extend(node.outputs.iter().map(String::as_str));
        if !node.outputs.iter().any(|output| wanted.contains(output.as_str())) {
            continue;
        }
        let kind = match node.operator.derivative() {
            Derivative::Exact => continue,
            Derivative::Estimated => "estimated",
            Derivative::Zero => "zero",
            Derivative::None => "none",
        };
        found.entry(kind).or_default().push(format!("{} ({})", node.name, node.operator.name()));
    }
    found
}

fn taps(graph: &Graph, facts: &BTreeMap<String, Fact>) -> Vec<(String, Vec<usize>)> {
    let mut taps: Vec<(String, Vec<usize>)> = Vec::new();
    for node in &graph.nodes {
        let Some(fact) = node.outputs.first().and_then(|output| facts.get(output)) else { continue };
        let Some(shape) = fact.shape.as_ref().filter(|shape| shape.len() > 1) else { continue };
        if !fact.element.is_float() || fact.value.is_some() || node.name.starts_with(crate::graph::PREPROCESSING) {
            continue;
        }
        match taps.last_mut() {
            Some(last) if last.1 == *shape => last.0.clone_from(&node.outputs[0]),
            _ => taps.push((node.outputs[0].clone(), shape.clone())),
        }
    }
    taps
}

fn findings(graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, constant) in &graph.constants {
        let strange = constant.to_f32().iter().filter(|value| !value.is_finite()).count();
        if constant.element().is_float() && strange > 0 {
            findings.push(format!("`{name}` holds {strange} values that are NaN or infinite"));
        }
    }
    for name in graph.parameters() {
        let constant: &Tensor = &graph.constants[name];
        if constant.shape().len() > 1 && constant.len() > 1 && constant.to_f32().iter().all(|&value| value == 0.0) {
            findings.push(format!("all weights of `{name}` are 0"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::{Comparison, Concat, Convolution, MatMul, QuantizeLinear, Shape, Softmax, Transpose, Unary};
    use crate::{ElementType, GraphBuilder, Input};
    use nocebo_core::Seed;
    use std::sync::Arc;

    fn classifier() -> Graph {
        let mut b = GraphBuilder::new("tiny", Seed(1));
        let x = b.input("image", &[1, 8, 8]);
        let x = b.convolution("stem", &x, (1, 4), 3, Convolution::new(2, 2, 1));
        let x = b.relu("stem.relu", &x);
        let x = b.global_average("pool", &x);
        let x = b.linear("head", &x, (4, 3));
        b.finish(&[&x]).unwrap()
    }

    fn node(name: &str, operator: impl Into<Operator>, inputs: &[&str]) -> Node {
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        Node { name: name.into(), operator: operator.into(), inputs, outputs: vec![name.into()] }
    }

    #[test]
    fn a_classifier_is_described() {
        let summary = Summary::of(&classifier());
        assert_eq!(summary.operators["Conv"], 1);
        assert_eq!(summary.parameters, 4 * 9 + 4 * 3 + 3);
        assert_eq!(summary.multiplications, Some(4 * 4 * 4 * 9 + 4 * 3));
        assert_eq!(summary.outputs, [Some(vec![1, 3])]);
        assert_eq!(summary.task.as_deref(), Some("one of 3 classes (logits)"));
        assert!(summary.inexact.is_empty() && summary.findings.is_empty(), "{summary:?}");
        assert_eq!(summary.taps[0], ("stem.relu".to_owned(), vec![1, 4, 4, 4]));
        assert_eq!(summary.taps.last().unwrap(), &("head".to_owned(), vec![1, 3]));
    }

    #[test]
    fn heads_are_told_apart() {
        let guess = |shape: &[usize], nodes: Vec<Node>, output: &str| {
            let graph = Graph {
                inputs: vec![Input::batch("x", shape)],
                outputs: vec![output.into()],
                nodes,
                constants: [("w".to_owned(), Arc::new(Tensor::floats(&[6, 1], vec![1.0; 6]).unwrap()))].into(),
                ..Graph::default()
            };
            Summary::of(&graph).task.unwrap()
        };
        let sigmoid = || vec![node("y", Activation::Sigmoid, &["x"])];
        assert!(guess(&[14], sigmoid(), "y").contains("14 findings"));
        assert!(guess(&[1], sigmoid(), "y").contains("present or absent (sigmoid)"));
        assert!(guess(&[6], vec![node("y", MatMul, &["x", "w"])], "y").contains("regression"));
        assert!(guess(&[5], vec![node("y", Softmax::LAST, &["x"])], "y").contains("5 classes (softmax)"));
        let maps = || vec![node("s", Softmax { axis: 1, logarithm: false, joined: false }, &["x"])];
        assert!(guess(&[7, 4, 5], maps(), "s").contains("a map of 7 classes"));
        let last = Softmax { axis: 3, logarithm: false, joined: false };
        let channels_last = vec![node("c", Concat { axis: 3 }, &["x", "x", "x"]), node("s", last, &["c"])];
        assert!(guess(&[4, 5, 1], channels_last, "s").contains("a map of 3 classes"));
        let moved = vec![node("y", Activation::Sigmoid, &["x"]), node("t", Transpose { order: vec![0, 1] }, &["y"])];
        assert!(guess(&[3], moved, "t").contains("3 findings"));
        assert!(guess(&[1, 4, 4], vec![node("y", Activation::Relu, &["x"])], "y").contains("reconstruction"));
    }

    #[test]
    fn nodes_without_an_exact_gradient_are_listed_where_they_matter() {
        let mut graph = classifier();
        let quantise = QuantizeLinear { axis: 1, block: 0, element: Some(ElementType::I8) };
        graph.constants.insert("scale".into(), Arc::new(Tensor::scalar(0.1)));
        graph.insert_after("stem.relu", "quantise", quantise, &["scale"]).unwrap();
        let back = crate::operators::DequantizeLinear { axis: 1, block: 0 };
        graph.insert_after("quantise", "back", back, &["scale"]).unwrap();
        graph.insert_after("back", "floor", Unary::Floor, &[]).unwrap();
        graph.constants.insert("limit".into(), Arc::new(Tensor::scalar(0.0)));
        graph.nodes.push(node("decision", Comparison::Greater, &["head", "limit"]));
        graph.nodes.push(node("unread", Comparison::Less, &["head", "limit"]));
        graph.nodes.push(node("shape", Shape { start: 0, end: None }, &["head"]));
        graph.outputs.extend(["decision".to_owned(), "shape".to_owned()]);
        let summary = Summary::of(&graph);
        assert_eq!(summary.inexact["estimated"], ["quantise (QuantizeLinear)"]);
        assert_eq!(summary.inexact["zero"], ["floor (Floor)"]);
        assert_eq!(summary.inexact["none"], ["decision (Greater)"]);
    }

    #[test]
    fn strange_weights_are_found_and_open_sides_are_no_error() {
        let mut graph = classifier();
        graph.constants.insert("head.weight".into(), Arc::new(Tensor::floats(&[3, 4], vec![0.0; 12]).unwrap()));
        graph.constants.insert("head.bias".into(), Arc::new(Tensor::floats(&[3], vec![f32::NAN, 1.0, 2.0]).unwrap()));
        let findings = Summary::of(&graph).findings;
        assert!(
            findings.len() == 2 && findings[0].contains("head.bias") && findings[1].contains("head.weight"),
            "{findings:?}"
        );
        graph.inputs[0].shape.as_mut().unwrap()[2] = Dimension::Symbolic("height".into());
        let summary = Summary::of(&graph);
        assert_eq!((summary.multiplications, summary.task, summary.outputs), (None, None, vec![None]));
    }
}
