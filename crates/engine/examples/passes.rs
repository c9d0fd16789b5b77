//! Times passes of an ONNX network that carries its spec: the engine's side of `bench/peers`.
//!
//! ```text
//! passes zoo NAME 3,28,28 MODEL.onnx        writes a network of the zoo with random weights and 9 classes
//! passes MODEL.onnx [engine|engine-direct|burn] [steps]
//! ```
//!
//! Commands come by lines and are answered by a line each:
//!
//! - `inputs PATH COUNT`: reads COUNT samples as little-endian f32;
//! - `outputs` and `gradient`: one pass over all of them; answers wall and CPU milliseconds. The gradient is that of the sum
//!   of all logits;
//! - `write PATH`: logits, then the gradient of the last `gradient`, as f32;
//! - `peak`: greatest resident memory in MiB.

use std::io::{BufRead, Write};
use std::time::Instant;

use nocebo_core::{DifferentiableModel, Domain, Gradient, ModelSpec, Objective, Samples, Seed, Task};
use nocebo_engine::{EngineModel, Options};
use nocebo_graph::zoo::{self, Blueprint};
use nocebo_graph::{Device, GraphModel, onnx};

/// The sum of the logits.
struct Total;

impl Objective for Total {
    fn evaluate(&self, _: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, nocebo_core::Error> {
        cotangent.fill(1.0);
        Ok(outputs.iter().sum())
    }
}

type Failure = Box<dyn std::error::Error>;

/// Writes a network of the zoo.
fn write(name: &str, shape: &str, path: &str) -> Result<(), Failure> {
    let shape: Vec<usize> = shape.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let class_names = (0..9).map(|class| class.to_string()).collect();
    let domain = Domain::grey_levels(&shape, 255.0)?;
    let spec = ModelSpec { domain, task: Task::MultiClass { classes: 9 }, class_names };
    let (mean, deviation) = (vec![120.0; shape[0]], vec![60.0; shape[0]]);
    let blueprint = Blueprint { spec: &spec, mean: &mean, standard_deviation: &deviation, seed: Seed(1) };
    Ok(onnx::write(&zoo::build(name, &blueprint)?, path.as_ref())?)
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [zoo, name, shape, path] = arguments.as_slice()
        && zoo == "zoo"
    {
        return write(name, shape, path);
    }
    let path = arguments.first().ok_or("usage: passes MODEL.onnx [engine|engine-direct|burn] [steps]")?;
    let graph = onnx::read(path.as_ref())?;
    let spec = graph.spec()?.ok_or("the model carries no spec")?;
    let shape = spec.domain.shape().to_vec();
    let executor = arguments.get(1).map_or("engine", String::as_str);
    let model: Box<dyn DifferentiableModel> = match executor {
        "engine" | "engine-direct" => {
            let options = Options { winograd: executor == "engine", ..Options::default() };
            let model = EngineModel::new(graph, spec, options)?;
            if arguments.get(2).is_some() {
                for (name, kernel) in model.engine().steps() {
                    eprintln!("{name}: {kernel}");
                }
            }
            Box::new(model)
        }
        "burn" => Box::new(GraphModel::new(graph, spec, &Device::default())?),
        other => return Err(format!("unknown executor {other}").into()),
    };
    let mut samples: Option<Samples> = None;
    let mut last: Option<Gradient> = None;
    let mut answers = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let loaded = samples.as_ref().ok_or("no inputs yet");
        match words.as_slice() {
            ["inputs", path, count] => {
                let bytes = std::fs::read(path)?;
                let values: Vec<f32> =
                    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                assert_eq!(values.len(), count.parse::<usize>()? * shape.iter().product::<usize>());
                samples = Some(Samples::new(values, &shape)?);
                writeln!(answers, "ok")?;
            }
            ["outputs"] => {
                let (start, cpu) = (Instant::now(), cpu_milliseconds());
                model.outputs(loaded?)?;
                writeln!(answers, "{} {}", start.elapsed().as_secs_f64() * 1e3, cpu_milliseconds() - cpu)?;
            }
            ["gradient"] => {
                let (start, cpu) = (Instant::now(), cpu_milliseconds());
                last = Some(model.gradient(loaded?, &Total)?);
                writeln!(answers, "{} {}", start.elapsed().as_secs_f64() * 1e3, cpu_milliseconds() - cpu)?;
            }
            ["write", path] => {
                let gradient = last.as_ref().ok_or("no gradient yet")?;
                let logits = gradient.outputs.as_samples().values();
                let bytes = logits.iter().chain(gradient.inputs.values()).flat_map(|value| value.to_le_bytes());
                std::fs::write(path, bytes.collect::<Vec<u8>>())?;
                writeln!(answers, "ok")?;
            }
            ["peak"] => {
                let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
                let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
                let kilobytes: f64 = line.split_whitespace().nth(1).unwrap_or("nan").parse()?;
                writeln!(answers, "{}", kilobytes / 1024.0)?;
            }
            other => return Err(format!("unknown command {other:?}").into()),
        }
        answers.flush()?;
    }
    Ok(())
}

/// CPU time of this process so far, all threads; 0 where the system does not say.
fn cpu_milliseconds() -> f64 {
    // Fields 14 and 15 of the line, counted behind the parenthesis of the name; in ticks of a hundredth of a second.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10.0
}
