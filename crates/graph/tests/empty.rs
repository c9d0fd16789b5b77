//! Tensors without elements and scalars pass through the operators as NumPy has it.

#![expect(clippy::unwrap_used, reason = "what cannot be read or computed is a failed test")]

use std::sync::Arc;

use nocebo_graph::operators::{
    Activation, Arithmetic, Concat, Expand, Flatten, Gather, Identity, MatMul, Operator, Reduce, Reduction, Reshape,
    Slice, Softmax, Split, Squeeze, Tile, TopK, Transpose, Unary, Unsqueeze,
};
use nocebo_graph::{Device, ElementType, Executor, Graph, Input, Node, Tensor};

#[expect(clippy::needless_pass_by_value, reason = "a table of literal calls")]
fn run(operator: impl Into<Operator>, inputs: Vec<Tensor>, constants: Vec<Tensor>, outputs: usize) -> Vec<Tensor> {
    let mut graph = Graph::default();
    let mut names = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        graph.inputs.push(Input { name: format!("x{index}"), shape: None, element: input.element() });
        names.push(format!("x{index}"));
    }
    for (index, constant) in constants.into_iter().enumerate() {
        graph.constants.insert(format!("c{index}"), Arc::new(constant));
        names.push(format!("c{index}"));
    }
    graph.outputs = (0..outputs).map(|index| format!("y{index}")).collect();
    graph.nodes.push(Node {
        name: "n".into(),
        operator: operator.into(),
        inputs: names,
        outputs: graph.outputs.clone(),
    });
    Executor::new(graph, &Device::flex()).unwrap().forward(&inputs).unwrap()
}

fn floats(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    Tensor::floats(shape, (0..count).map(|value| value as f32).collect()).unwrap()
}

fn shape(operator: impl Into<Operator>, inputs: &[&[usize]], constants: Vec<Tensor>) -> Vec<usize> {
    run(operator, inputs.iter().map(|shape| floats(shape)).collect(), constants, 1)[0].shape().to_vec()
}

#[test]
fn empty_tensors_keep_their_shape() {
    let list = |values: &[i64]| Tensor::list(values);
    assert_eq!(shape(Identity, &[&[2, 0]], vec![]), [2, 0]);
    assert_eq!(shape(Activation::Relu, &[&[0, 3]], vec![]), [0, 3]);
    assert_eq!(shape(Unary::Exp, &[&[0]], vec![]), [0]);
    assert_eq!(shape(Arithmetic::Add, &[&[2, 0], &[1]], vec![]), [2, 0]);
    assert_eq!(shape(Arithmetic::Max, &[&[2, 0], &[2, 1]], vec![]), [2, 0]);
    assert_eq!(shape(Slice, &[&[4, 5]], vec![list(&[9]), list(&[20]), list(&[1])]), [4, 0]);
    assert_eq!(shape(Slice, &[&[4, 5]], vec![list(&[3]), list(&[1])]), [0, 5]);
    assert_eq!(shape(Reshape { allow_zero: true }, &[&[0, 3]], vec![list(&[3, 0])]), [3, 0]);
    assert_eq!(shape(Flatten { axis: 1 }, &[&[2, 0, 3]], vec![]), [2, 0]);
    assert_eq!(shape(Transpose::default(), &[&[2, 0]], vec![]), [0, 2]);
    assert_eq!(shape(Concat { axis: 0 }, &[&[0, 2], &[3, 2]], vec![]), [3, 2]);
    assert_eq!(shape(Concat { axis: 1 }, &[&[0, 2], &[0, 3]], vec![]), [0, 5]);
    assert_eq!(shape(Expand, &[&[1, 0]], vec![list(&[3, 0])]), [3, 0]);
    assert_eq!(shape(Tile, &[&[2]], vec![list(&[0])]), [0]);
    assert_eq!(shape(Gather { axis: 0 }, &[&[3, 2]], vec![Tensor::list(&[])]), [0, 2]);
    assert_eq!(shape(MatMul, &[&[0, 3], &[3, 2]], vec![]), [0, 2]);
    assert_eq!(shape(MatMul, &[&[2, 0], &[0, 3]], vec![]), [2, 3]);
    assert_eq!(shape(Squeeze, &[&[1, 0]], vec![list(&[0])]), [0]);
    assert_eq!(shape(Unsqueeze, &[&[0]], vec![list(&[0])]), [1, 0]);
    assert_eq!(shape(Softmax::LAST, &[&[0, 3]], vec![]), [0, 3]);
    assert_eq!(shape(TopK { axis: 0, greatest: true }, &[&[3]], vec![list(&[0])]), [0]);
    let split = run(Split { axis: 0, counted: false }, vec![floats(&[2])], vec![list(&[0, 2, 0])], 3);
    assert_eq!(split.iter().map(|part| part.shape()[0]).collect::<Vec<_>>(), [0, 2, 0]);
}

#[test]
fn sums_over_nothing_have_their_neutral_value() {
    for (reduction, expected) in [
        (Reduction::Sum, 0.0),
        (Reduction::Prod, 1.0),
        (Reduction::L1, 0.0),
        (Reduction::L2, 0.0),
        (Reduction::SumSquare, 0.0),
        (Reduction::LogSum, f32::NEG_INFINITY),
        (Reduction::LogSumExp, f32::NEG_INFINITY),
    ] {
        let result = run(Reduce::new(reduction, true), vec![floats(&[2, 0, 1])], vec![Tensor::list(&[1])], 1);
        assert_eq!(
            (result[0].shape(), result[0].to_f32().as_ref()),
            (&[2, 1, 1][..], &[expected; 2][..]),
            "{reduction:?}"
        );
    }
    let product = run(MatMul, vec![floats(&[2, 0]), floats(&[0, 1])], vec![], 1);
    assert_eq!(product[0].to_f32().as_ref(), [0.0, 0.0]);
}

#[test]
fn scalars_are_tensors_too() {
    let scalar = || Tensor::scalar(3.0);
    assert_eq!(run(Unary::Neg, vec![scalar()], vec![], 1)[0], Tensor::scalar(-3.0));
    assert_eq!(run(Arithmetic::Mul, vec![scalar(), scalar()], vec![], 1)[0], Tensor::scalar(9.0));
    assert_eq!(shape(Arithmetic::Add, &[&[], &[2]], vec![]), [2]);
    assert_eq!(shape(Unsqueeze, &[&[]], vec![Tensor::list(&[0])]), [1]);
    assert_eq!(shape(Squeeze, &[&[1]], vec![]), [0usize; 0]);
    assert_eq!(shape(Expand, &[&[]], vec![Tensor::list(&[2, 3])]), [2, 3]);
    assert_eq!(shape(Transpose::default(), &[&[]], vec![]), [0usize; 0]);
    assert_eq!(shape(Flatten { axis: 0 }, &[&[]], vec![]), [1, 1]);
    assert_eq!(shape(Reduce::new(Reduction::Max, false), &[&[]], vec![]), [0usize; 0]);
    assert_eq!(shape(MatMul, &[&[3], &[3]], vec![]), [0usize; 0]);
    let index = Tensor::list(&[1]).reshaped(&[]).unwrap();
    assert_eq!(run(Gather { axis: 0 }, vec![floats(&[3])], vec![index], 1)[0], Tensor::scalar(1.0));
    assert_eq!(run(Identity, vec![Tensor::list(&[7])], vec![], 1)[0].element(), ElementType::I64);
}
