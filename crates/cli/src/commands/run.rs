//! `nocebo run`.

use std::path::Path;

use nocebo_data::OpenOptions;
use nocebo_data::formats::npy::{self, Array};
use nocebo_engine::Engine;
use nocebo_graph::{Dimension, ElementType, Executor, Graph, Tensor, onnx};

use crate::arguments::{ExecutorName, Global, Run};
use crate::failure::{Failure, OrFail};
use crate::load;
use crate::progress::note;

/// Values of the outputs, and gradients by the inputs.
type Answer = (Vec<Tensor>, Vec<Option<Tensor>>);

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
    let engine = engine(&graph, &inputs, global)?;
    let executor = Executor::new(graph, &load::device(global)?).or_load()?;
    if arguments.out.exists() {
        return Err(Failure::usage(format!("{} exists; choose a new folder", arguments.out.display())));
    }
    let name = engine.as_ref().map_or("burn".to_owned(), |engine| load::engine_name(engine, global));
    let (values, gradients) = match engine {
        Some(engine) => on_engine(&engine, &executor, &inputs[0], arguments.gradient)?,
        None if arguments.gradient => executor.forward_with_gradients(&inputs).or_incomplete()?,
        None => (executor.forward(&inputs).or_incomplete()?, Vec::new()),
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
    println!("wrote {}, computed by {name}", arguments.out.display());
    Ok(())
}

/// The engine where `--executor` asks for it and it computes the model: one input of floats, one output, operators that it has.
fn engine(graph: &Graph, inputs: &[Tensor], global: &Global) -> Result<Option<Engine>, Failure> {
    if global.executor == ExecutorName::Burn {
        return Ok(None);
    }
    let refused = |reason: &dyn std::fmt::Display| {
        note(global, format!("runs on the Burn executor: {reason}"));
        Ok(None)
    };
    let ([input], [_]) = (inputs, graph.outputs.as_slice()) else {
        return refused(&"the engine takes one input and gives one output");
    };
    let Some((batch, sample)) = input.shape().split_first().filter(|_| graph.inputs[0].element == ElementType::F32)
    else {
        return refused(&"the engine takes floats with an axis of samples");
    };
    let declared = graph.inputs[0].shape.as_deref().and_then(<[Dimension]>::first);
    if *batch == 0 || matches!(declared, Some(Dimension::Fixed(fixed)) if fixed != batch) {
        return refused(&"the number of samples");
    }
    match Engine::new(graph.clone(), sample, load::engine_options(global)) {
        Ok(engine) => Ok(Some(engine)),
        Err(nocebo_engine::Error::InstructionSet(name)) => Err(nocebo_engine::Error::InstructionSet(name)).or_usage(),
        Err(reason) => refused(&reason),
    }
}

/// Values and gradients, as [`Executor::forward_with_gradients`] gives them.
fn on_engine(engine: &Engine, executor: &Executor, input: &Tensor, gradient: bool) -> Result<Answer, Failure> {
    let facts = executor.facts(&[input.shape().to_vec()]).or_incomplete()?;
    let fact = &facts[&executor.graph().outputs[0]];
    let as_declared = |values: Vec<f32>| -> Result<Tensor, Failure> {
        let shape = fact.shape.clone().unwrap_or_default();
        Ok(Tensor::floats(&shape, values).or_incomplete()?.cast(fact.element))
    };
    if !gradient {
        return Ok((vec![as_declared(engine.outputs(&input.to_f32()))?], Vec::new()));
    }
    let ones = |_: usize, _: usize, _: &[f32], cotangent: &mut [f32]| {
        cotangent.fill(1.0);
        Ok::<(), Failure>(())
    };
    let (values, gradients) = engine.gradients(&input.to_f32(), 1, ones)?;
    let by_input = |values| Tensor::floats(input.shape(), values).or_incomplete().map(Some);
    Ok((vec![as_declared(values)?], gradients.into_iter().map(by_input).collect::<Result<_, _>>()?))
}

/// NumPy's name of an element type; it has none for `bfloat16`, whose values are stored as `float32`.
fn numpy_name(element: ElementType) -> &'static str {
    match element {
        ElementType::F32 | ElementType::BF16 => "float32",
        ElementType::F64 => "float64",
        other => other.name(),
    }
}

/// An array (`.npy`), a tensor of ONNX's own tests (`.pb`), or a batch of one image or volume in its unit.
fn read(path: &Path) -> Result<Tensor, Failure> {
    if path.extension().is_some_and(|end| end == "pb") {
        return onnx::read_tensor(path).or_load();
    }
    if nocebo_data::is_image(path) {
        let image = nocebo_data::open_image(path, &OpenOptions::default()).or_load()?;
        let shape = [&[1], image.samples().shape()].concat();
        return Tensor::floats(&shape, image.samples().values().to_vec()).or_load();
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
