//! `nocebo run`.

use std::path::Path;

use nocebo_data::formats::npy;
use nocebo_graph::{Executor, Tensor, onnx};

use crate::arguments::{Global, Run};
use crate::failure::{Failure, OrFail};
use crate::load;

/// Most values of one input: 4 GiB of floats.
const LARGEST_INPUT: u64 = 1 << 30;

pub(crate) fn run(arguments: &Run, global: &Global) -> Result<(), Failure> {
    let graph = onnx::read(&arguments.model).or_load()?;
    let names: Vec<String> = graph.inputs.iter().map(|input| input.name.clone()).collect();
    if names.len() != arguments.input.len() {
        let expected = names.join(", ");
        return Err(Failure::usage(format!(
            "--input: one file for each of {expected} is needed, got {}",
            arguments.input.len()
        )));
    }
    let mut inputs = Vec::new();
    for (path, input) in arguments.input.iter().zip(&graph.inputs) {
        let (shape, values) = npy::read(path, LARGEST_INPUT).or_load()?;
        inputs.push(Tensor::floats(&shape, values).or_load()?.cast(input.element));
    }
    let outputs = graph.outputs.clone();
    let executor = Executor::new(graph, &load::device(global)?).or_load()?;
    if arguments.out.exists() {
        return Err(Failure::usage(format!("{} exists; choose a new folder", arguments.out.display())));
    }
    let (values, gradients) = if arguments.gradient {
        executor.forward_with_gradients(&inputs).or_incomplete()?
    } else {
        (executor.forward(&inputs).or_incomplete()?, Vec::new())
    };
    std::fs::create_dir_all(&arguments.out)
        .map_err(|error| Failure::usage(format!("{} cannot be made: {error}", arguments.out.display())))?;
    for (name, value) in outputs.iter().zip(&values) {
        write(&arguments.out, name, value)?;
    }
    for (name, gradient) in names.iter().zip(&gradients) {
        if let Some(gradient) = gradient {
            write(&arguments.out, &format!("gradient_{name}"), gradient)?;
        }
    }
    println!("wrote {}", arguments.out.display());
    Ok(())
}

/// Writes `<name>.npy`; characters of the name that a file name may not hold become `_`.
fn write(folder: &Path, name: &str, value: &Tensor) -> Result<(), Failure> {
    let plain: String = name.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    npy::write(&folder.join(format!("{plain}.npy")), value.shape(), &value.to_f32()).or_incomplete()
}
