//! `nocebo run`.

use std::path::Path;

use nocebo_data::formats::npy::{self, Array};
use nocebo_graph::{ElementType, Executor, Tensor, onnx};

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
        inputs.push(fitted(read(path)?, input.element, path)?);
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

/// NumPy's name of an element type; it has none for `bfloat16`, whose values are stored as `float32`.
fn numpy_name(element: ElementType) -> &'static str {
    match element {
        ElementType::F32 | ElementType::BF16 => "float32",
        ElementType::F64 => "float64",
        other => other.name(),
    }
}

/// An array (`.npy`), or a tensor of ONNX's own tests (`.pb`).
fn read(path: &Path) -> Result<Tensor, Failure> {
    if path.extension().is_some_and(|end| end == "pb") {
        return onnx::read_tensor(path).or_load();
    }
    let Array { element, shape, bytes } = npy::read_array(path, LARGEST_INPUT).or_load()?;
    let known = ElementType::all().find(|known| numpy_name(*known) == element);
    Tensor::from_bytes(&shape, known.unwrap_or(ElementType::F32), &bytes).or_load()
}

/// The tensor as the element type that the model takes. Floats are rounded to floats of another width; any other
/// conversion must keep every value.
fn fitted(tensor: Tensor, element: ElementType, path: &Path) -> Result<Tensor, Failure> {
    if tensor.element() == element {
        return Ok(tensor);
    }
    let cast = tensor.cast(element);
    let kept = element.is_float() || cast.to_f64().iter().zip(tensor.to_f64().iter()).all(|(new, old)| new == old);
    if kept {
        return Ok(cast);
    }
    let message = format!(
        "{}: the model takes {element}, but the values are {} and would change; convert them first",
        path.display(),
        tensor.element()
    );
    Err(Failure::usage(message))
}

/// Writes `<name>.npy`; characters of the name that a file name may not hold become `_`.
fn write(folder: &Path, name: &str, value: &Tensor) -> Result<(), Failure> {
    let plain: String = name.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    let stored = if value.element() == ElementType::BF16 { value.cast(ElementType::F32) } else { value.clone() };
    let array =
        Array { element: numpy_name(stored.element()), shape: stored.shape().to_vec(), bytes: stored.to_bytes() };
    npy::write_array(&folder.join(format!("{plain}.npy")), &array).or_incomplete()
}
