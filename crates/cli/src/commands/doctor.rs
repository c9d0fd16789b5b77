//! `nocebo doctor`: does this machine and this build work?

use nocebo_core::{
    DifferentiableModel, Domain, Goal, GoalObjective, Label, Loss, Model, ModelSpec, Samples, Seed, Task,
};
use nocebo_engine::{EngineModel, Error, InstructionSet, Options};
use nocebo_graph::zoo::{self, Blueprint};
use nocebo_graph::{GraphModel, onnx};

use crate::arguments::Global;
use crate::failure::{Failure, Kind, OrFail};
use crate::load;

/// One question to a small model.
type Check = fn(&GraphModel) -> Result<(), Failure>;

pub(crate) fn run(global: &Global) -> Result<(), Failure> {
    println!("nocebo {}", env!("CARGO_PKG_VERSION"));
    println!("device {}, {} threads", global.device, rayon::current_num_threads());
    println!("instruction sets: {}", instruction_sets());
    println!("engine: {}", InstructionSet::chosen().map_err(Error::InstructionSet).or_usage()?);
    let checks: [(&str, Check); 4] = [
        ("gradient agrees with finite differences", gradient_is_right),
        ("same bits alone and in a batch", batch_does_not_matter),
        ("ONNX written and read back", onnx_round_trip),
        ("the engine agrees with the Burn executor", engine_agrees),
    ];
    let model = tiny(global)?;
    let mut failed = 0;
    for (name, check) in checks {
        match check(&model) {
            Ok(()) => println!("ok      {name}"),
            Err(failure) => {
                failed += 1;
                println!("FAILED  {name}: {failure}");
            }
        }
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::new(Kind::Incomplete, anyhow::anyhow!("{failed} of {} checks failed", checks.len())))
    }
}

fn instruction_sets() -> String {
    #[cfg(target_arch = "x86_64")]
    let found = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let found: [(&str, bool); 0] = [];
    let names: Vec<&str> = found.iter().filter(|(_, present)| *present).map(|(name, _)| *name).collect();
    if names.is_empty() { "none beyond the baseline".to_owned() } else { names.join(", ") }
}

fn tiny(global: &Global) -> Result<GraphModel, Failure> {
    let domain = Domain::grey_levels(&[1, 16, 16], 255.0).or_incomplete()?;
    let task = Task::MultiClass { classes: 2 };
    let spec = ModelSpec { domain, task, class_names: vec!["a".to_owned(), "b".to_owned()] };
    let blueprint = Blueprint { spec: &spec, mean: &[120.0], standard_deviation: &[60.0], seed: Seed(1) };
    let graph = zoo::build("small-cnn", &blueprint).or_incomplete()?;
    GraphModel::new(graph, spec, &load::device(global)?).or_incomplete()
}

fn inputs(count: usize) -> Result<Samples, Failure> {
    let values = (0..count * 256).map(|at| ((at * 7919) % 251) as f32).collect();
    Samples::new(values, &[1, 16, 16]).or_incomplete()
}

fn gradient_is_right(model: &GraphModel) -> Result<(), Failure> {
    let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
    let objective = GoalObjective::new(&goal, &model.spec().task, Loss::Margin).or_incomplete()?;
    let inputs = inputs(1)?;
    let gradient = model.gradient(&inputs, &objective).or_incomplete()?.inputs;
    let length: f32 = gradient.values().iter().map(|slope| slope * slope).sum::<f32>().sqrt();
    let at = |size: f32| -> Result<f32, Failure> {
        let mut moved = inputs.clone();
        moved.values_mut().iter_mut().zip(gradient.values()).for_each(|(value, slope)| *value += size * slope / length);
        Ok(model.gradient(&moved, &objective).or_incomplete()?.values[0])
    };
    let measured = at(0.5)? - at(-0.5)?;
    if (measured - length).abs() <= 0.05 * length {
        Ok(())
    } else {
        Err(Failure::new(
            Kind::Incomplete,
            anyhow::anyhow!("slope {measured} along the gradient, its length is {length}"),
        ))
    }
}

fn batch_does_not_matter(model: &GraphModel) -> Result<(), Failure> {
    let batch = inputs(19)?;
    let whole = model.outputs(&batch).or_incomplete()?;
    let alone = model.outputs(&batch.select(&[17])).or_incomplete()?;
    if alone.row(0) == whole.row(17) {
        Ok(())
    } else {
        Err(Failure::new(Kind::Incomplete, anyhow::anyhow!("the logits differ")))
    }
}

fn engine_agrees(model: &GraphModel) -> Result<(), Failure> {
    let options = Options::default();
    let engine = EngineModel::new(model.graph().clone(), model.spec().clone(), options).or_incomplete()?;
    let inputs = inputs(3)?;
    let (ours, reference) = (engine.outputs(&inputs).or_incomplete()?, model.outputs(&inputs).or_incomplete()?);
    let far = (0..inputs.len()).any(|row| {
        let scale = reference.row(row).iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
        ours.row(row).iter().zip(reference.row(row)).any(|(a, b)| (a - b).abs() > 1e-4 * scale)
    });
    if far { Err(Failure::new(Kind::Incomplete, anyhow::anyhow!("the logits differ"))) } else { Ok(()) }
}

fn onnx_round_trip(model: &GraphModel) -> Result<(), Failure> {
    let path = std::env::temp_dir().join(format!("nocebo-doctor-{}.onnx", std::process::id()));
    let read = onnx::write(model.graph(), &path).and_then(|()| onnx::read(&path));
    // The file is only a probe: whether it could be removed changes nothing.
    let _ = std::fs::remove_file(&path);
    if read.or_incomplete()?.constants == model.graph().constants {
        Ok(())
    } else {
        Err(Failure::new(Kind::Incomplete, anyhow::anyhow!("the weights differ")))
    }
}
