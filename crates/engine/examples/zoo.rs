//! Writes every network of the zoo with its answers, for comparison with others: `bench/zoo.py` runs this.
//!
//! ```text
//! cargo run --release -p nocebo-engine --example zoo -- FOLDER
//! ```
//!
//! For each network a folder with `model.onnx` (random weights), `input_K.pb`, `output_K.pb` and `gradient_K.pb` (of the sum of
//! the first output) by Burn, tensors as in the test sets of ONNX; beside them `times.json`: seconds to load the file, of a
//! forward pass, and of a forward pass with the gradient, by Burn and by the engine where it takes the network (a classifier or
//! segmenter with one input), each the median of [`RUNS`] after one that is not counted.

#![expect(clippy::print_stdout, reason = "a program that tells how far it is")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use nocebo_core::{
    DifferentiableModel, Domain, MaskTolerance, Model, ModelSpec, Objective, Samples, Seed, Segmentation, Task,
};
use nocebo_engine::{EngineModel, Options};
use nocebo_graph::zoo::{self, Blueprint};
use nocebo_graph::{Device, Dimension, Executor, Tensor, onnx};
use rand::RngExt;

const BATCH: usize = 2;
const RUNS: usize = 5;

/// Shape of a sample and number of classes.
fn sample(name: &str) -> (&'static [usize], usize) {
    match name {
        "autoencoder" | "vae" => (&[1, 28, 28], 10),
        "pixelcnn" => (&[1, 28, 28], 256),
        "eegnet" => (&[64, 128], 2),
        "gru" | "lstm" => (&[17, 48], 2),
        "meshnet" | "segresnet" | "small-cnn3d" | "unet3d-small" => (&[1, 24, 24, 24], 3),
        "unet3d" => (&[1, 16, 16, 16], 3),
        "mlp" => (&[30], 2),
        "resnet1d" => (&[12, 1000], 5),
        "small-cnn" => (&[1, 28, 28], 2),
        "unet" => (&[1, 64, 64], 2),
        "unet-small" => (&[1, 128, 128], 2),
        _ => (&[3, 64, 64], 14),
    }
}

/// The sum of the logits.
struct Total;

impl Objective for Total {
    fn evaluate(&self, _: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, nocebo_core::Error> {
        cotangent.fill(1.0);
        Ok(outputs.iter().sum())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("a folder to write to")?;
    let mut times = BTreeMap::new();
    for name in zoo::names() {
        println!("{name}");
        times.insert(name, write(name, &Path::new(&folder).join(name))?);
    }
    std::fs::write(Path::new(&folder).join("times.json"), serde_json::to_string_pretty(&times)?)?;
    Ok(())
}

/// Writes one network; seconds to load, forward, and forward with gradient, by Burn and then by the engine.
fn write(name: &str, folder: &Path) -> Result<Vec<f64>, Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let (shape, classes) = sample(name);
    let class_names = (0..classes).map(|class| class.to_string()).collect();
    let task = if zoo::segments(name) {
        let tolerance = MaskTolerance::default();
        Task::Segmentation(Segmentation { classes, shape: shape[1..].to_vec(), threshold: None, tolerance })
    } else {
        Task::MultiClass { classes }
    };
    let spec = ModelSpec { domain: Domain::grey_levels(shape, 255.0)?, task, class_names };
    let (mean, standard_deviation) = (vec![120.0; shape[0]], vec![60.0; shape[0]]);
    let blueprint = Blueprint { spec: &spec, mean: &mean, standard_deviation: &standard_deviation, seed: Seed(1) };
    let path = folder.join("model.onnx");
    onnx::write(&zoo::build(name, &blueprint)?, &path)?;

    let mut inputs = Vec::new();
    for (index, input) in onnx::read(&path)?.inputs.iter().enumerate() {
        let sides = input.shape.iter().flatten();
        let shape: Vec<usize> =
            sides.map(|side| if let Dimension::Fixed(side) = side { *side } else { BATCH }).collect();
        let range = if matches!(input.name.as_str(), "latent" | "noise") { -2.0..2.0 } else { 0.0..255.0 };
        let mut generator = Seed(2).for_sample(index as u64);
        let values = (0..shape.iter().product()).map(|_| generator.random_range(range.clone())).collect();
        let tensor = Tensor::floats(&shape, values)?;
        onnx::write_tensor(&input.name, &tensor, &folder.join(format!("input_{index}.pb")))?;
        inputs.push(tensor);
    }
    let load = || -> Result<Executor, Box<dyn Error>> {
        let executor = Executor::new(onnx::read(&path)?, &Device::flex())?;
        executor.facts(&inputs.iter().map(|input| input.shape().to_vec()).collect::<Vec<_>>())?;
        Ok(executor)
    };
    let executor = load()?;
    let names = executor.graph().outputs.clone();
    let (outputs, gradients) = executor.forward_with_gradients(&inputs)?;
    for (index, (name, output)) in names.iter().zip(&outputs).enumerate() {
        onnx::write_tensor(name, output, &folder.join(format!("output_{index}.pb")))?;
    }
    for (index, gradient) in gradients.iter().enumerate() {
        if let Some(gradient) = gradient {
            onnx::write_tensor("gradient", gradient, &folder.join(format!("gradient_{index}.pb")))?;
        }
    }
    let mut times = vec![
        median(|| load().map(|_| ()))?,
        median(|| Ok(executor.forward(&inputs).map(|_| ())?))?,
        median(|| Ok(executor.forward_with_gradients(&inputs).map(|_| ())?))?,
    ];
    let plan = || EngineModel::new(onnx::read(&path)?, spec.clone(), Options::default());
    if let ([input], Ok(engine)) = (inputs.as_slice(), plan()) {
        let samples = Samples::new(input.to_f32().into_owned(), shape)?;
        times.push(median(|| Ok(plan().map(|_| ())?))?);
        times.push(median(|| Ok(engine.outputs(&samples).map(|_| ())?))?);
        times.push(median(|| Ok(engine.gradient(&samples, &Total).map(|_| ())?))?);
    }
    Ok(times)
}

/// Median of the seconds that `work` takes.
fn median(work: impl Fn() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    work()?;
    let mut seconds = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[RUNS / 2])
}
