//! What is done with a file that may hold anything; shared by the tests and by `fuzz/`.

use nocebo_graph::{Device, Dimension, Executor, Tensor, onnx};

/// Side of what a model leaves open.
const SIDE: usize = 2;

/// Most values of an input, and most multiplications, of a model that is run.
const SMALL: usize = 1 << 16;

/// Elements of a shape where a side of 0 counts as 1, which a sum over it makes of it.
fn room(shape: &[usize]) -> usize {
    shape.iter().fold(1, |product, &side| product.saturating_mul(side.max(1)))
}

/// Reads a model, plans it, runs it where it is small, writes it and reads it again.
///
/// # Panics
///
/// When something panics on the way, or what was written cannot be read.
pub(crate) fn try_model(bytes: &[u8]) {
    let Ok(graph) = onnx::read_bytes(bytes) else { return };
    if let Ok(again) = onnx::to_bytes(&graph)
        && let Err(error) = onnx::read_bytes(&again)
    {
        panic!("what was written cannot be read: {error}");
    }
    let mut inputs = Vec::new();
    for input in &graph.inputs {
        let sides = input.shape.as_deref().unwrap_or_default();
        let shape: Vec<usize> =
            sides.iter().map(|side| if let Dimension::Fixed(side) = side { *side } else { SIDE }).collect();
        if room(&shape) > SMALL {
            return;
        }
        let Ok(ones) = Tensor::floats(&shape, vec![1.0; shape.iter().product()]) else { return };
        inputs.push(ones.cast(input.element));
    }
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|input| input.shape().to_vec()).collect();
    let Ok(executor) = Executor::new(graph, &Device::flex()) else { return };
    let Ok(facts) = executor.facts(&shapes) else { return };
    let costly = executor.multiplications(&shapes).is_ok_and(|count| count > SMALL as u64);
    if !costly && !facts.values().any(|fact| fact.shape.as_ref().is_some_and(|shape| room(shape) > SMALL)) {
        drop(executor.forward_with_gradients(&inputs));
    }
}
