//! Every network of the zoo: the shape of its answer, its gradient, its number of parameters.

#![expect(clippy::unwrap_used, reason = "what cannot be built or computed is a failed test")]

use std::sync::Arc;

use nocebo_core::{Domain, ModelSpec, Seed, Task};
use nocebo_graph::zoo::{self, Blueprint};
use nocebo_graph::{Device, Executor, Graph, Tensor};
use rand::RngExt;

/// One network.
struct Row {
    name: &'static str,
    /// A sample that is quick to compute.
    sample: &'static [usize],
    /// Shape of the answer for 2 such samples and 3 classes.
    answer: &'static [usize],
    /// Sample, classes and number of parameters that are published; the source stands with the network.
    published: Option<(&'static [usize], usize, usize)>,
}

const ZOO: &[Row] = &[
    Row {
        name: "meshnet",
        sample: &[1, 5, 4, 6],
        answer: &[2, 3, 5, 4, 6],
        published: Some((&[1, 8, 8, 8], 2, 56_194)),
    },
    Row { name: "mlp", sample: &[7], answer: &[2, 3], published: None },
    Row {
        name: "resnet18",
        sample: &[1, 12, 12],
        answer: &[2, 3],
        published: Some((&[3, 224, 224], 1000, 11_689_512)),
    },
    Row { name: "resnet1d", sample: &[2, 40], answer: &[2, 3], published: None },
    Row { name: "small-cnn", sample: &[1, 12, 12], answer: &[2, 3], published: None },
    Row {
        name: "unet",
        sample: &[1, 17, 18],
        answer: &[2, 3, 17, 18],
        // With one class more than `published`, whose head has 64 weights and a bias a class.
        published: Some((&[3, 64, 64], 2, 31_037_633 + 65)),
    },
    Row { name: "unet-small", sample: &[2, 37, 16], answer: &[2, 3, 37, 16], published: None },
    Row {
        name: "unet3d",
        sample: &[1, 8, 9, 8],
        answer: &[2, 3, 8, 9, 8],
        published: Some((&[3, 132, 132, 116], 3, 19_069_955 + 2_336 + 896)),
    },
    Row { name: "unet3d-small", sample: &[2, 11, 8, 14], answer: &[2, 3, 11, 8, 14], published: None },
];

fn spec(shape: &[usize], classes: usize) -> ModelSpec {
    let class_names = (0..classes).map(|class| class.to_string()).collect();
    ModelSpec { domain: Domain::grey_levels(shape, 255.0).unwrap(), task: Task::MultiClass { classes }, class_names }
}

fn unset(name: &str, shape: &[usize], classes: usize) -> Graph {
    let (mean, deviation) = (vec![0.5; shape[0]], vec![2.0; shape[0]]);
    let blueprint =
        Blueprint { spec: &spec(shape, classes), mean: &mean, standard_deviation: &deviation, seed: Seed(1) };
    zoo::unset(name, &blueprint).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A network with random weights, made quickly: all draw from one block of numbers over and over.
fn filled(row: &Row) -> Graph {
    let mut generator = Seed(2).for_sample(0);
    let block: Vec<f32> = (0..4099).map(|_| generator.random_range(-1.0..1.0)).collect();
    let mut graph = unset(row.name, row.sample, 3);
    let names: Vec<String> = graph.parameters().into_iter().map(str::to_owned).collect();
    for name in names {
        let shape = graph.constants[&name].shape().to_vec();
        if shape.len() < 2 {
            continue; // scales of 1 and biases of 0
        }
        let fan_in: usize = shape[1..].iter().product();
        let spread = (6.0 / fan_in as f32).sqrt(); // uniform with variance 2 / fan-in
        let scaled: Vec<f32> = block.iter().map(|value| spread * value).collect();
        let count = graph.constants[&name].len();
        let mut values = Vec::with_capacity(count);
        while values.len() < count {
            values.extend_from_slice(&scaled[..scaled.len().min(count - values.len())]);
        }
        graph.constants.insert(name, Arc::new(Tensor::floats(&shape, values).unwrap()));
    }
    graph
}

#[test]
fn the_table_holds_the_whole_zoo() {
    let listed: Vec<&str> = ZOO.iter().map(|row| row.name).collect();
    assert_eq!(zoo::names().collect::<Vec<_>>(), listed);
}

#[test]
fn numbers_of_parameters_are_the_published_ones() {
    for row in ZOO {
        if let Some((sample, classes, parameters)) = row.published {
            assert_eq!(unset(row.name, sample, classes).parameter_count(), parameters, "{}", row.name);
        }
    }
}

/// The derivative along the gradient, against the difference of two runs.
#[test]
fn answers_have_their_shape_and_gradients_are_right() {
    for row in ZOO {
        let executor = Executor::new(filled(row), &Device::flex()).unwrap();
        let mut shape = vec![2];
        shape.extend_from_slice(row.sample);
        let mut generator = Seed(3).for_sample(0);
        let x: Vec<f32> = (0..shape.iter().product()).map(|_| generator.random_range(-3.0..5.0)).collect();
        let norm = |values: &[f32]| values.iter().map(|value| f64::from(value * value)).sum::<f64>().sqrt();
        let input = |values: Vec<f32>| [Tensor::floats(&shape, values).unwrap()];
        let (outputs, gradients) =
            executor.forward_with_gradients(&input(x.clone())).unwrap_or_else(|error| panic!("{}: {error}", row.name));
        assert_eq!(outputs[0].shape(), row.answer, "{}", row.name);
        let gradient = gradients[0].as_ref().unwrap().to_f32().into_owned();
        let slope = norm(&gradient);
        assert!(slope.is_finite() && slope > 0.0, "{}: {slope}", row.name);
        let step = 2e-4 * norm(&x);
        let moved = |by: f64| {
            let values = x.iter().zip(&gradient).map(|(x, g)| x + (by * f64::from(*g) / slope) as f32).collect();
            executor.forward(&input(values)).unwrap()[0].to_f64().iter().sum::<f64>()
        };
        let expected = (moved(step) - moved(-step)) / (2.0 * step);
        assert!(
            (slope - expected).abs() <= 0.01 * slope,
            "{}: {slope} by gradient, {expected} by difference",
            row.name
        );
    }
}

#[test]
fn what_an_architecture_cannot_take_is_refused() {
    let flat = spec(&[9], 3);
    let blueprint = Blueprint { spec: &flat, mean: &[0.0], standard_deviation: &[1.0], seed: Seed(1) };
    for (name, form) in [
        ("resnet18", "[channels, height, width]"),
        ("resnet1d", "[channels, length]"),
        ("unet3d", "[channels, depth, height, width]"),
        ("resnet-18", "resnet18"),
    ] {
        assert!(zoo::build(name, &blueprint).unwrap_err().to_string().contains(form), "{name}");
    }
}
