//! The engine against the Burn executor on whole networks.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use nocebo_core::{
    DifferentiableModel, Domain, Goal, GoalObjective, Gradient, Label, Loss, MaskTolerance, Model, ModelSpec, Samples,
    Seed, Segmentation, Task,
};
use nocebo_engine::{EngineModel, Error, InstructionSet, Options, unsupported};
use nocebo_graph::zoo::{self, Blueprint};
use nocebo_graph::{Device, Graph, GraphModel, Tensor};
use rand::RngExt;

fn spec(shape: &[usize]) -> ModelSpec {
    let class_names = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let domain = Domain::grey_levels(shape, 255.0).unwrap();
    ModelSpec { domain, task: Task::MultiClass { classes: 3 }, class_names }
}

/// A network as the zoo makes it.
fn fresh(name: &str, spec: &ModelSpec) -> Graph {
    let channels = spec.domain.shape()[0];
    let (mean, deviation) = (vec![120.0; channels], vec![60.0; channels]);
    let blueprint = Blueprint { spec, mean: &mean, standard_deviation: &deviation, seed: Seed(1) };
    zoo::build(name, &blueprint).unwrap()
}

/// A network whose statistics and scales are not those of the first step of training.
fn shaken(name: &str, spec: &ModelSpec) -> Graph {
    let mut graph = fresh(name, spec);
    let mut generator = Seed(5).for_sample(0);
    for (name, constant) in &mut graph.constants {
        let range = match name.rsplit('.').next() {
            Some("running_mean" | "bias") => -0.2..0.2,
            Some("running_var") => 0.5..2.0,
            Some("weight") if constant.shape().len() == 1 => 0.5..1.5,
            _ => continue,
        };
        let values = (0..constant.len()).map(|_| generator.random_range(range.clone())).collect();
        *constant = Tensor::floats(constant.shape(), values).unwrap().into();
    }
    graph
}

fn samples(count: usize, shape: &[usize]) -> Samples {
    let mut generator = Seed(3).for_sample(0);
    let values = (0..count * shape.iter().product::<usize>()).map(|_| generator.random_range(0.0..255.0)).collect();
    Samples::new(values, shape).unwrap()
}

fn gradient(model: &dyn DifferentiableModel, inputs: &Samples) -> Gradient {
    let label = match &model.spec().task {
        Task::Segmentation(task) => Label::Mask(vec![0; task.shape.iter().product()]),
        _ => Label::Class(0),
    };
    let goal = Goal::Untargeted { labels: vec![label; inputs.len()] };
    let objective = GoalObjective::new(&goal, &model.spec().task, Loss::CrossEntropy).unwrap();
    model.gradient(inputs, &objective).unwrap()
}

fn relative(a: &[f32], b: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (difference / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

const NETWORKS: [(&str, &[usize]); 5] = [
    ("mlp", &[1, 12, 12]),
    ("small-cnn", &[1, 28, 28]),
    ("small-cnn", &[3, 13, 10]),
    ("resnet18", &[3, 28, 28]),
    ("resnet18", &[1, 64, 70]),
];

/// Compares outputs and gradients. A ReLU that flips at an activation near 0 moves the gradient of its sample, which is why
/// cosines are compared, and why shaken networks in the tile domain have a wider bound.
fn agree(build: fn(&str, &ModelSpec) -> Graph, networks: &[(&str, &[usize])], options: Options, least_cosine: f64) {
    for &(name, shape) in networks {
        let spec = spec(shape);
        let graph = build(name, &spec);
        assert_eq!(unsupported(&graph).unwrap(), []);
        let engine = EngineModel::new(graph.clone(), spec.clone(), options).unwrap();
        let burn = GraphModel::new(graph, spec, &Device::default()).unwrap();
        let inputs = samples(3, shape);
        let (ours, reference) = (gradient(&engine, &inputs), gradient(&burn, &inputs));
        let outputs = relative(ours.outputs.as_samples().values(), reference.outputs.as_samples().values());
        assert!(outputs < 1e-4, "{name} {shape:?} {options:?}: outputs differ by {outputs}");
        let cosine = cosine(ours.inputs.values(), reference.inputs.values());
        assert!(cosine >= least_cosine, "{name} {shape:?} {options:?}: cosine {cosine}");
    }
}

/// The other networks that decide, at sizes that are quick; `unet` and `vgg16` are larger ones of their kinds.
const ZOO: [(&str, &[usize]); 13] = [
    ("densenet121", &[1, 12, 12]),
    ("eegnet", &[3, 40]),
    ("efficientnet-b0", &[1, 12, 12]),
    ("gru", &[4, 6]),
    ("lstm", &[4, 6]),
    ("meshnet", &[1, 5, 4, 6]),
    ("mobilenet-v2", &[1, 12, 12]),
    ("resnet1d", &[2, 40]),
    ("resnet50", &[1, 12, 12]),
    ("segresnet", &[1, 9, 8, 7]),
    ("unet-small", &[2, 37, 16]),
    ("unet3d-small", &[2, 11, 8, 14]),
    ("vit-tiny", &[1, 8, 12]),
];

fn spec_of(name: &str, shape: &[usize]) -> ModelSpec {
    let mut spec = spec(shape);
    if zoo::segments(name) {
        let (shape, tolerance) = (shape[1..].to_vec(), MaskTolerance::default());
        spec.task = Task::Segmentation(Segmentation { classes: 3, shape, threshold: None, tolerance });
    }
    spec
}

#[test]
fn the_zoo_agrees_with_the_burn_executor() {
    for (name, shape) in ZOO {
        let spec = spec_of(name, shape);
        let graph = shaken(name, &spec);
        assert_eq!(unsupported(&graph).unwrap(), [], "{name}");
        let options = Options { winograd: false, ..Options::default() };
        let engine = EngineModel::new(graph.clone(), spec.clone(), options).unwrap();
        let burn = GraphModel::new(graph, spec.clone(), &Device::default()).unwrap();
        let inputs = samples(2, shape);
        let (ours, reference) = (gradient(&engine, &inputs), gradient(&burn, &inputs));
        let outputs = relative(ours.outputs.as_samples().values(), reference.outputs.as_samples().values());
        let cosine = cosine(ours.inputs.values(), reference.inputs.values());
        assert!(outputs < 1e-4 && cosine >= 0.99999, "{name}: outputs differ by {outputs}, cosine {cosine}");
    }
}

/// DeepFool and its kin ask for the gradients of many logits at one point.
#[test]
fn several_objectives_at_once_give_what_each_gives_alone() {
    let spec = spec(&[1, 28, 28]);
    let engine = EngineModel::new(shaken("small-cnn", &spec), spec.clone(), Options::default()).unwrap();
    // More samples than a pass takes.
    let inputs = samples(70, &[1, 28, 28]);
    let goals = [0, 1, 2].map(|class| Goal::Targeted {
        labels: vec![Label::Class((class + 1) % 3); inputs.len()],
        targets: vec![Label::Class(class); inputs.len()],
    });
    let objectives = goals.each_ref().map(|goal| GoalObjective::new(goal, &spec.task, Loss::CrossEntropy).unwrap());
    let together = engine
        .gradients(&inputs, &objectives.each_ref().map(|objective| objective as &dyn nocebo_core::Objective))
        .unwrap();
    for (objective, found) in objectives.iter().zip(&together) {
        let alone = engine.gradient(&inputs, objective).unwrap();
        assert_eq!((&found.values, &found.inputs, &found.outputs), (&alone.values, &alone.inputs, &alone.outputs));
    }
    assert_ne!(together[0].inputs, together[1].inputs);
}

#[test]
fn an_instruction_set_that_the_machine_lacks_is_refused() {
    let other = if cfg!(target_arch = "aarch64") { InstructionSet::Avx2 } else { InstructionSet::Neon };
    let spec = spec(&[1, 12, 12]);
    let options = Options { instruction_set: Some(other), ..Options::default() };
    let refused = EngineModel::new(fresh("mlp", &spec), spec, options);
    assert!(matches!(refused, Err(Error::InstructionSet(_))));
}

#[test]
fn agrees_with_the_burn_executor_on_every_instruction_set() {
    for set in InstructionSet::available() {
        let options = Options { instruction_set: Some(set), ..Options::default() };
        agree(shaken, &NETWORKS[..4], options, 0.9999);
    }
    agree(fresh, &NETWORKS, Options::default(), 0.99999);
}

#[test]
fn agrees_with_the_burn_executor_without_winograd() {
    agree(shaken, &NETWORKS, Options { winograd: false, ..Options::default() }, 0.99999);
}

#[test]
fn a_sample_has_the_same_bits_in_any_batch_and_on_any_threads() {
    const OTHERS: [(&str, &[usize]); 6] = [
        ("eegnet", &[4, 40]),
        ("gru", &[4, 6]),
        ("lstm", &[4, 6]),
        ("meshnet", &[1, 6, 5, 18]),
        ("segresnet", &[1, 9, 8, 7]),
        ("vit-tiny", &[1, 8, 12]),
    ];
    for &(name, shape) in NETWORKS[..4].iter().chain(&OTHERS) {
        let spec = spec_of(name, shape);
        let engine = EngineModel::new(shaken(name, &spec), spec, Options::default()).unwrap();
        // More samples than a pass takes where that is quick.
        let count = if name == "mlp" { 70 } else { 5 };
        let inputs = samples(count, shape);
        let whole = gradient(&engine, &inputs);
        for threads in [1, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for rows in [vec![0], vec![4, 2], (0..count).rev().collect::<Vec<_>>()] {
                let part = pool.install(|| gradient(&engine, &inputs.select(&rows)));
                let outputs = pool.install(|| engine.outputs(&inputs.select(&rows)).unwrap());
                for (position, &row) in rows.iter().enumerate() {
                    assert_eq!(outputs.row(position), whole.outputs.row(row), "{name}");
                    assert_eq!(part.outputs.row(position), whole.outputs.row(row), "{name}");
                    assert_eq!(part.inputs.row(position), whole.inputs.row(row), "{name}");
                    assert_eq!(part.values[position], whole.values[row], "{name}");
                }
            }
        }
    }
}
