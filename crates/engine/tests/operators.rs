//! Operators that the zoo holds in one form only, in their other forms: the engine against the Burn executor.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use nocebo_core::{
    DifferentiableModel, Domain, Goal, GoalObjective, Gradient, Label, Loss, ModelSpec, Samples, Seed, Task,
};
use nocebo_engine::{EngineModel, Options, unsupported};
use nocebo_graph::operators::{
    Activation, Arithmetic, Cell, Coordinates, Direction, Flatten, GroupNormalization, InstanceNormalization,
    LayerNormalization, MatMul, NearestRule, Operator, Recurrent, Reduce, Reduction, Resize, ResizeMode, Softmax,
    Transpose,
};
use nocebo_graph::{Device, GraphBuilder, GraphModel, Tensor};
use rand::RngExt;

/// A sample: channels and two axes of space.
const SAMPLE: [usize; 3] = [4, 5, 6];

/// What stands between the input and the head.
#[derive(Default)]
struct Row {
    name: &'static str,
    /// Order of the axes before the operator, and how to get the samples back in front of its result.
    orders: (Vec<usize>, Vec<usize>),
    operators: Vec<(Operator, Vec<Part>)>,
}

/// An input of an operator.
enum Part {
    /// The value so far.
    Value,
    Random(Vec<usize>),
    Constant(Tensor),
    Absent,
}

fn row(name: &'static str, operator: impl Into<Operator>, parts: Vec<Part>) -> Row {
    Row { name, operators: vec![(operator.into(), parts)], ..Row::default() }
}

fn turned(row: Row, before: &[usize], after: &[usize]) -> Row {
    Row { orders: (before.to_vec(), after.to_vec()), ..row }
}

fn with(parts: &[&[usize]]) -> Vec<Part> {
    std::iter::once(Part::Value).chain(parts.iter().map(|shape| Part::Random(shape.to_vec()))).collect()
}

fn rows() -> Vec<Row> {
    let scaled = |scales: &[f32]| {
        let scales = Tensor::floats(&[4], scales.to_vec()).unwrap();
        vec![Part::Value, Part::Absent, Part::Constant(scales)]
    };
    let resize = |mode, coordinates, nearest| Resize { coordinates, nearest, ..Resize::new(mode) };
    let softmax = |axis, logarithm, joined| Softmax { axis, logarithm, joined };
    let group = |per_channel| GroupNormalization { groups: 2, epsilon: 1e-4, per_channel };
    let layer = |axis| LayerNormalization { axis, epsilon: 1e-4 };
    let recurrent = |cell, direction, batch_first| {
        let activations = Vec::new();
        Recurrent { cell, direction, hidden: 5, batch_first, clip: 0.0, activations }
    };
    let weights = |gates: usize, directions: usize| {
        with(&[&[directions, gates * 5, 6], &[directions, gates * 5, 5], &[directions, 2 * gates * 5]])
    };
    // The channels are summed away, so that samples are `[time, features]`.
    let sequence = |name, layer: Recurrent, parts| {
        let sum = Reduce::new(Reduction::Sum, false);
        let axes = vec![Part::Value, Part::Constant(Tensor::list(&[1]))];
        Row { name, operators: vec![(sum.into(), axes), (layer.into(), parts)], ..Row::default() }
    };
    let lstm = Cell::Lstm { coupled: false };
    let gru = Cell::Gru { reset_after: true };
    let linear = |coordinates| resize(ResizeMode::Linear, coordinates, NearestRule::Floor);
    vec![
        row("instance normalisation", InstanceNormalization { epsilon: 1e-4 }, with(&[&[4], &[4]])),
        row("group normalisation", group(true), with(&[&[4], &[4]])),
        row("group normalisation, a scale a group", group(false), with(&[&[2], &[2]])),
        row("layer normalisation", layer(-1), with(&[&[6], &[6]])),
        row("layer normalisation over a sample", layer(1), with(&[&[4, 5, 6]])),
        row("layer normalisation, one scale", layer(2), with(&[&[1], &[5, 1]])),
        turned(row("layer normalisation behind", layer(2), with(&[&[5, 6]])), &[1, 0, 2, 3], &[1, 0, 2, 3]),
        row("softmax of channels", softmax(1, false, false), with(&[])),
        row("softmax of rows", softmax(-1, false, false), with(&[])),
        row("softmax of a sample", softmax(1, false, true), with(&[])),
        row("log-softmax", softmax(2, true, false), with(&[])),
        row("prelu", Activation::PRelu, with(&[&[4, 1, 1]])),
        row("prelu, a slope an element", Activation::PRelu, with(&[&[4, 5, 6]])),
        row("constant on the right", MatMul, with(&[&[6, 3]])),
        row("constant on the left", MatMul, vec![Part::Random(vec![3, 5]), Part::Value]),
        turned(row("samples second", MatMul, with(&[&[6, 3]])), &[1, 0, 2, 3], &[1, 0, 2, 3]),
        turned(row("a factor, samples third", Arithmetic::Mul, with(&[&[5, 1, 6]])), &[1, 2, 0, 3], &[2, 0, 1, 3]),
        row(
            "nearest",
            resize(ResizeMode::Nearest, Coordinates::Asymmetric, NearestRule::Floor),
            scaled(&[1.0, 1.0, 2.0, 1.5]),
        ),
        row(
            "nearest, channels too",
            resize(ResizeMode::Nearest, Coordinates::HalfPixel, NearestRule::RoundPreferCeil),
            scaled(&[1.0, 2.0, 0.6, 1.0]),
        ),
        row("linear", linear(Coordinates::HalfPixel), scaled(&[1.0, 1.0, 2.0, 1.7])),
        row("linear, corners", linear(Coordinates::AlignCorners), scaled(&[1.0, 1.0, 0.6, 2.0])),
        row(
            "cubic",
            resize(ResizeMode::Cubic, Coordinates::PytorchHalfPixel, NearestRule::Floor),
            scaled(&[1.0, 1.0, 1.4, 2.0]),
        ),
        sequence("lstm", recurrent(lstm, Direction::Bidirectional, true), weights(4, 2)),
        sequence("gru", recurrent(gru, Direction::Reverse, true), weights(3, 1)),
        sequence("plain", recurrent(Cell::Plain, Direction::Forward, true), weights(1, 1)),
    ]
}

fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut generator = Seed(seed).for_sample(0);
    (0..count).map(|_| generator.random_range(-1.0..1.0)).collect()
}

fn gradient(model: &dyn DifferentiableModel, inputs: &Samples) -> Gradient {
    let goal = Goal::Untargeted { labels: vec![Label::Class(0); inputs.len()] };
    let objective = GoalObjective::new(&goal, &model.spec().task, Loss::CrossEntropy).unwrap();
    model.gradient(inputs, &objective).unwrap()
}

/// Relative distance and cosine.
fn compared(a: &[f32], b: &[f32]) -> (f64, f64) {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    ((dot(&difference, &difference) / dot(b, b)).sqrt(), dot(a, b) / (dot(a, a) * dot(b, b)).sqrt())
}

#[test]
fn every_form_agrees_with_the_burn_executor() {
    for row in rows() {
        let mut b = GraphBuilder::new("row", Seed(1));
        let mut x = b.input("x", &SAMPLE);
        if !row.orders.0.is_empty() {
            x = b.node("before", Transpose { order: row.orders.0.clone() }, &[&x]);
        }
        for (number, (operator, parts)) in row.operators.iter().enumerate() {
            let mut handles = Vec::new();
            for (position, part) in parts.iter().enumerate() {
                let name = format!("{number}.{position}");
                handles.push(match part {
                    Part::Value => x.clone(),
                    Part::Random(shape) => {
                        let values = numbers(position as u64, shape.iter().product());
                        b.constant(&name, Tensor::floats(shape, values).unwrap())
                    }
                    Part::Constant(tensor) => b.constant(&name, tensor.clone()),
                    Part::Absent => GraphBuilder::absent(),
                });
            }
            let handles: Vec<_> = handles.iter().collect();
            x = b.node(&format!("{number}"), operator.clone(), &handles);
        }
        if !row.orders.1.is_empty() {
            x = b.node("after", Transpose { order: row.orders.1.clone() }, &[&x]);
        }
        let x = b.node("flat", Flatten { axis: 1 }, &[&x]);
        let probe = b.finish(&[&x]).unwrap();
        let width = nocebo_graph::summary::Summary::of(&probe).outputs[0].as_ref().unwrap().iter().product();
        let mut graph = probe;
        // Logits: three sums of the values.
        let values = numbers(99, width * 3);
        graph.constants.insert("head".into(), Tensor::floats(&[width, 3], values).unwrap().into());
        graph.nodes.push(nocebo_graph::Node {
            name: "logits".into(),
            operator: MatMul.into(),
            inputs: vec!["flat".into(), "head".into()],
            outputs: vec!["logits".into()],
        });
        graph.outputs = vec!["logits".into()];
        assert_eq!(unsupported(&graph).unwrap(), [], "{}", row.name);
        let class_names = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let domain = Domain::grey_levels(&SAMPLE, 255.0).unwrap();
        let spec = ModelSpec { domain, task: Task::MultiClass { classes: 3 }, class_names };
        let engine = EngineModel::new(graph.clone(), spec.clone(), Options::default()).unwrap();
        let burn = GraphModel::new(graph, spec, &Device::default()).unwrap();
        let inputs = Samples::new(numbers(5, 5 * 120), &SAMPLE).unwrap();
        let (ours, reference) = (gradient(&engine, &inputs), gradient(&burn, &inputs));
        let (outputs, _) = compared(ours.outputs.as_samples().values(), reference.outputs.as_samples().values());
        let (_, cosine) = compared(ours.inputs.values(), reference.inputs.values());
        assert!(outputs < 1e-5 && cosine > 0.999_999, "{}: outputs differ by {outputs}, cosine {cosine}", row.name);
    }
}
