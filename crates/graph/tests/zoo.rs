//! Every network of the zoo: the shape of its answer, its gradient, its number of parameters.

#![expect(clippy::unwrap_used, reason = "what cannot be built or computed is a failed test")]

use std::path::Path;
use std::sync::Arc;

use nocebo_core::{Domain, MaskTolerance, ModelSpec, Seed, Segmentation, Task};
use nocebo_graph::weights::{self, KeyMap};
use nocebo_graph::zoo::meshnet::MeshNet;
use nocebo_graph::zoo::{self, Blueprint};
use nocebo_graph::{Device, Dimension, Executor, Graph, GraphBuilder, Tensor};
use rand::RngExt;

/// Steps of a difference, as parts of the norm of the input, of which one must do: kinks of ReLUs spoil large steps,
/// rounding spoils small ones.
const STEPS: [f64; 3] = [1e-3, 2e-4, 4e-5];

/// One network.
struct Row {
    name: &'static str,
    /// A sample that is quick to compute.
    sample: &'static [usize],
    /// Shape of the answer for 2 such samples and 3 classes.
    answer: &'static [usize],
    /// Whether the task is a segmentation.
    segments: bool,
    /// Sample, classes and number of parameters that are published; the source stands with the network.
    published: Option<(&'static [usize], usize, usize)>,
}

const fn row(name: &'static str, sample: &'static [usize], answer: &'static [usize]) -> Row {
    Row { name, sample, answer, segments: false, published: None }
}

impl Row {
    const fn segments(self) -> Self {
        Self { segments: true, ..self }
    }

    const fn published(self, sample: &'static [usize], classes: usize, parameters: usize) -> Self {
        Self { published: Some((sample, classes, parameters)), ..self }
    }
}

const PHOTO: &[usize] = &[3, 224, 224];

const ZOO: &[Row] = &[
    row("autoencoder", &[1, 9, 8], &[2, 1, 9, 8]),
    row("densenet121", &[1, 12, 12], &[2, 3]).published(PHOTO, 1000, 7_978_856),
    row("eegnet", &[3, 40], &[2, 3]).published(&[64, 128], 2, 2_258),
    row("efficientnet-b0", &[1, 12, 12], &[2, 3]).published(PHOTO, 1000, 5_288_548),
    row("gan-discriminator", &[1, 12, 16], &[2, 1]).published(&[3, 64, 64], 2, 2_765_568),
    row("gan-generator", &[1, 12, 16], &[2, 1, 12, 16]).published(&[3, 64, 64], 2, 3_576_704),
    row("gru", &[4, 6], &[2, 3]),
    row("lstm", &[4, 6], &[2, 3]),
    row("meshnet", &[1, 5, 4, 6], &[2, 3, 5, 4, 6]).segments().published(&[1, 8, 8, 8], 2, 56_194),
    row("mlp", &[7], &[2, 3]),
    row("mobilenet-v2", &[1, 12, 12], &[2, 3]).published(PHOTO, 1000, 3_504_872),
    row("pixelcnn", &[2, 5, 6], &[2, 3, 2, 5, 6]),
    row("resnet18", &[1, 12, 12], &[2, 3]).published(PHOTO, 1000, 11_689_512),
    row("resnet1d", &[2, 40], &[2, 3]),
    row("resnet50", &[1, 12, 12], &[2, 3]).published(PHOTO, 1000, 25_557_032),
    row("segresnet", &[1, 9, 8, 7], &[2, 3, 9, 8, 7]).segments().published(&[1, 32, 32, 32], 2, 1_176_186),
    row("small-cnn", &[1, 12, 12], &[2, 3]),
    // By hand: 27 (1·16 + 16·32 + 32·64) weights, 2 (16 + 32 + 64) scales and shifts, and a head of 65 for each class.
    row("small-cnn3d", &[1, 8, 9, 12], &[2, 3]).published(&[1, 12, 32, 32], 2, 69_552 + 224 + 130),
    // With one class more than the published network, whose head has 64 weights and a bias a class.
    row("unet", &[1, 17, 18], &[2, 3, 17, 18]).segments().published(&[3, 64, 64], 2, 31_037_633 + 65),
    row("unet-small", &[2, 37, 16], &[2, 3, 37, 16]).segments(),
    row("unet3d", &[1, 8, 9, 8], &[2, 3, 8, 9, 8]).segments().published(
        &[3, 132, 132, 116],
        3,
        19_069_955 + 2_336 + 896,
    ),
    row("unet3d-small", &[2, 11, 8, 14], &[2, 3, 11, 8, 14]).segments(),
    row("vae", &[1, 6, 7], &[2, 1, 6, 7]).published(&[1, 28, 28], 2, 652_824),
    row("vgg16", &[1, 32, 32], &[2, 3]).published(PHOTO, 1000, 138_357_544),
    row("vit-tiny", &[1, 8, 12], &[2, 3]).published(PHOTO, 1000, 5_717_416),
];

fn spec(shape: &[usize], classes: usize, segments: bool) -> ModelSpec {
    let class_names = (0..classes).map(|class| class.to_string()).collect();
    let task = if segments {
        let tolerance = MaskTolerance::default();
        Task::Segmentation(Segmentation { classes, shape: shape[1..].to_vec(), threshold: None, tolerance })
    } else {
        Task::MultiClass { classes }
    };
    ModelSpec { domain: Domain::grey_levels(shape, 255.0).unwrap(), task, class_names }
}

fn unset(row: &Row, shape: &[usize], classes: usize) -> Graph {
    let (mean, deviation) = (vec![0.5; shape[0]], vec![2.0; shape[0]]);
    let spec = spec(shape, classes, row.segments);
    let blueprint = Blueprint { spec: &spec, mean: &mean, standard_deviation: &deviation, seed: Seed(1) };
    zoo::unset(row.name, &blueprint).unwrap_or_else(|error| panic!("{}: {error}", row.name))
}

/// A network with random weights, made quickly: all draw from one block of numbers over and over.
fn filled(row: &Row) -> Graph {
    let mut generator = Seed(2).for_sample(0);
    let block: Vec<f32> = (0..4099).map(|_| generator.random_range(-1.0..1.0)).collect();
    let mut graph = unset(row, row.sample, 3);
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
            assert_eq!(unset(row, sample, classes).parameter_count(), parameters, "{}", row.name);
        }
    }
}

/// The derivative along the gradient by the first input, against the difference of two runs.
#[test]
fn answers_have_their_shape_and_gradients_are_right() {
    for row in ZOO {
        let executor = Executor::new(filled(row), &Device::flex()).unwrap();
        let mut generator = Seed(3).for_sample(0);
        let inputs: Vec<Tensor> = executor
            .graph()
            .inputs
            .iter()
            .map(|input| {
                let sides = input.shape.iter().flatten();
                let shape: Vec<usize> =
                    sides.map(|side| if let Dimension::Fixed(side) = side { *side } else { 2 }).collect();
                let values = (0..shape.iter().product()).map(|_| generator.random_range(-3.0..5.0)).collect();
                Tensor::floats(&shape, values).unwrap()
            })
            .collect();
        let norm = |values: &[f32]| values.iter().map(|value| f64::from(value * value)).sum::<f64>().sqrt();
        let (outputs, gradients) =
            executor.forward_with_gradients(&inputs).unwrap_or_else(|error| panic!("{}: {error}", row.name));
        assert_eq!(outputs[0].shape(), row.answer, "{}", row.name);
        let gradient = gradients[0].as_ref().unwrap().to_f32().into_owned();
        let slope = norm(&gradient);
        assert!(slope.is_finite() && slope > 0.0, "{}: {slope}", row.name);
        let x = inputs[0].to_f32();
        let moved = |by: f64| {
            let values = x.iter().zip(&gradient).map(|(x, g)| x + (by * f64::from(*g) / slope) as f32).collect();
            let mut inputs = inputs.clone();
            inputs[0] = Tensor::floats(inputs[0].shape(), values).unwrap();
            executor.forward(&inputs).unwrap()[0].to_f64().iter().sum::<f64>()
        };
        let differences = STEPS.map(|step| {
            let step = step * norm(&x);
            (moved(step) - moved(-step)) / (2.0 * step)
        });
        let close = differences.iter().any(|difference| (slope - difference).abs() <= 0.01 * slope);
        assert!(close, "{}: {slope} by gradient, {differences:?} by difference", row.name);
    }
}

/// Every value of a PixelCNN depends on those before it alone, whatever stands in the weights that the masks hide.
#[test]
fn a_pixelcnn_looks_only_back() {
    let row = ZOO.iter().find(|row| row.name == "pixelcnn").unwrap();
    let &[channels, height, width] = row.sample else { panic!("an image") };
    let graph = filled(row);
    assert!(graph.parameters().contains("first.weight") && !graph.parameters().contains("first.mask"));
    let run = |graph: &Graph, values: Vec<f32>| {
        let executor = Executor::new(graph.clone(), &Device::flex()).unwrap();
        let input = Tensor::floats(&[1, channels, height, width], values).unwrap();
        executor.forward(&[input]).unwrap()[0].to_f32().into_owned()
    };
    let image: Vec<f32> = (0..channels * height * width).map(|value| (value * 7 % 11) as f32).collect();
    let plain = run(&graph, image.clone());
    let at = |logits: &[f32], value: usize| -> Vec<f32> {
        logits.iter().skip(value).step_by(channels * height * width).copied().collect()
    };
    // In the order of the factors: row, column, channel.
    let order: Vec<usize> = (0..height * width)
        .flat_map(|place| (0..channels).map(move |channel| channel * height * width + place))
        .collect();
    for (moment, &changed) in order.iter().enumerate() {
        let mut other = image.clone();
        other[changed] += 50.0;
        let logits = run(&graph, other);
        for &value in &order[..=moment] {
            assert_eq!(at(&plain, value), at(&logits, value), "{value} sees {changed}");
        }
        // The first value of a row is out of reach of the end of the row above.
        if let Some(&next) = order.get(moment + 1).filter(|_| (moment + 1) % (channels * width) > 0) {
            assert_ne!(at(&plain, next), at(&logits, next), "{next} does not see {changed}");
        }
    }
    let mut hidden = graph.clone();
    let mask = graph.constants["first.mask"].to_bool().into_owned();
    let weight = &graph.constants["first.weight"];
    let values = weight.to_f32().iter().zip(&mask).map(|(value, seen)| if *seen { *value } else { 1e6 }).collect();
    hidden.constants.insert("first.weight".into(), Arc::new(Tensor::floats(weight.shape(), values).unwrap()));
    assert_eq!(run(&hidden, image), plain);
}

/// Published networks of brainchop, against golden vectors of PyTorch (`bench/golden/meshnet.py`).
#[test]
fn published_meshnets_are_loaded_and_agree_with_pytorch() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/brainchop-models/meshnet");
    if !models.is_dir() {
        eprintln!("SKIPPED: {} is not there", models.display());
        return;
    }
    let golden = include_bytes!("golden/meshnet.safetensors");
    let golden = safetensors::SafeTensors::deserialize(golden).unwrap();
    let sides = [4, 6, 5];
    let slab = (0..sides.iter().product())
        .map(|place: usize| {
            let (z, y, x) = (place / 30, place / 5 % 6, place % 5);
            ((7 * z + 3 * y + 5 * x) % 11) as f32 / 10.0
        })
        .collect();
    let slab = Tensor::floats(&[1, 1, sides[0], sides[1], sides[2]], slab).unwrap();
    let network = |name: &str, classes| {
        let layers = std::fs::read_to_string(models.join(name).join("model.json")).unwrap();
        let spec = spec(&[1, sides[0], sides[1], sides[2]], classes, true);
        let blueprint = Blueprint { spec: &spec, mean: &[0.0], standard_deviation: &[1.0], seed: Seed(1) };
        MeshNet::from_json(&layers).unwrap().build(&blueprint, GraphBuilder::unset(name)).unwrap()
    };
    for (name, classes) in [("model5_gw_ae", 3), ("model18cls", 18)] {
        let mut graph = network(name, classes);
        weights::load(&mut graph, &models.join(name).join("model.pth"), &KeyMap::default()).unwrap();
        let logits = &Executor::new(graph, &Device::flex()).unwrap().forward(std::slice::from_ref(&slab)).unwrap()[0];
        let theirs = golden.tensor(name).unwrap();
        assert_eq!(logits.shape(), theirs.shape(), "{name}");
        for (ours, theirs) in logits.to_f32().iter().zip(theirs.data().as_chunks().0) {
            let theirs = f32::from_le_bytes(*theirs);
            assert!((ours - theirs).abs() <= 1e-4 * theirs.abs().max(1.0), "{name}: {ours}, PyTorch has {theirs}");
        }
    }
    for (name, classes) in [("model21_104class", 104), ("model30chan50cls", 50), ("subcortical", 18)] {
        let mut graph = network(name, classes);
        weights::load(&mut graph, &models.join(name).join("model.pth"), &KeyMap::default()).unwrap();
    }
    let mut graph = network("mindgrab", 2);
    let refused = weights::load(&mut graph, &models.join("mindgrab/model.pth"), &KeyMap::default()).unwrap_err();
    assert!(refused.to_string().contains("data.pkl"), "{refused}");
}

#[test]
fn what_an_architecture_cannot_take_is_refused() {
    let photo = spec(&[3, 64, 64], 3, false);
    let refusal = |name, spec: &ModelSpec| {
        let blueprint = Blueprint { spec, mean: &[0.0], standard_deviation: &[1.0], seed: Seed(1) };
        zoo::unset(name, &blueprint).unwrap_err().to_string()
    };
    for (name, form) in [
        ("resnet18", "[channels, height, width]"),
        ("eegnet", "[channels, length]"),
        ("resnet-18", "resnet18"),
        ("lstm", "[channels, length]"),
    ] {
        assert!(refusal(name, &spec(&[9], 3, false)).contains(form), "{name}");
    }
    assert!(refusal("unet3d", &spec(&[1, 9], 3, true)).contains("[channels, depth, height, width]"));
    assert!(refusal("small-cnn3d", &spec(&[1, 8, 7, 8], 3, false)).contains("8 voxels"));
    assert!(refusal("unet", &photo).contains("a segmentation"));
    assert!(refusal("resnet18", &spec(&[3, 64, 64], 3, true)).contains("a classification"));
    assert!(refusal("vgg16", &spec(&[3, 16, 64], 3, false)).contains("32 pixels"));
    assert!(refusal("vit-tiny", &spec(&[3, 64, 70], 3, false)).contains("multiples of 16"));
    assert!(refusal("gan-generator", &spec(&[3, 7, 7], 3, false)).contains("even sides"));
    assert!(refusal("eegnet", &spec(&[3, 31], 3, false)).contains("32 values"));
}

#[test]
fn lists_of_layers_that_are_no_meshnet_are_refused() {
    let layer = |from: i64, to: i64, kernel: usize, padding: usize| {
        format!(
            r#"{{"in_channels":{from},"out_channels":{to},"kernel_size":{kernel},"padding":{padding},"stride":1,"dilation":1}}"#
        )
    };
    let list = |layers: &[String]| format!(r#"{{"bias":true,"layers":[{}]}}"#, layers.join(","));
    let read = |layers: &[String]| MeshNet::from_json(&list(layers));
    let right = read(&[layer(-1, 5, 3, 1), layer(5, -1, 1, 0)]).unwrap();
    assert_eq!((right.layers, right.classes), (vec![(5, 1)], None));
    for wrong in [
        vec![],
        vec![layer(-1, 5, 3, 0), layer(5, -1, 1, 0)],
        vec![layer(-1, 5, 3, 1), layer(6, -1, 1, 0)],
        vec![layer(-1, 5, 5, 1), layer(5, -1, 1, 0)],
        vec![layer(-1, -1, 3, 1), layer(-1, -1, 1, 0)],
        vec![layer(-1, 5, 3, 1)],
    ] {
        assert!(read(&wrong).is_err(), "{wrong:?}");
    }
    assert!(MeshNet::from_json("{").is_err());
}
