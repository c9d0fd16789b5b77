//! The gradient of every operator by each of its float inputs, against central differences.
//!
//! Inputs are multiples of 0.1, shifted by 0.05 and shuffled, so that no value stands at a kink and no two are equal. Each
//! element is moved by ±0.01; outputs are weighted and summed in 64 bits.

#![expect(clippy::unwrap_used, reason = "what cannot be read or computed is a failed test")]

use std::sync::Arc;

use nocebo_graph::operators::{
    Activation, Arithmetic, AutoPad, BatchNormalization, Cast, Cell, Clip, Comparison, Compress, Concat, Convolution,
    Coordinates, CumulativeSum, DeformableConvolution, DepthToSpace, DequantizeLinear, Direction, Einsum, Expand,
    Flatten, Gather, GatherElements, GatherNd, Gemm, GlobalPool, GroupNormalization, Identity, InstanceNormalization,
    LayerNormalization, LocalResponseNormalization, MatMul, MeanVarianceNormalization, OneHot, Operator, Pad, PadMode,
    Pool, PoolKind, QuantizeLinear, Recurrent, Reduce, Reduction, RegionAlign, Reshape, Resize, ResizeMode,
    ReverseSequence, ScatterElements, ScatterNd, ScatterReduction, Slice, Softmax, SpaceToDepth, Split, Squeeze, Tile,
    TopK, Transpose, TransposedConvolution, Trilu, Unary, Unsqueeze, Where,
};
use nocebo_graph::tensor::Data;
use nocebo_graph::{Device, Dimension, ElementType, Executor, Graph, Input, Node, Tensor};

/// Where the values of an input lie.
#[derive(Clone, Copy)]
enum Range {
    /// On both sides of 0.
    Any,
    /// On both sides of 0, and never equal to a value of `Any`.
    Between,
    /// Above 0.
    Positive,
    /// In -1..1.
    Unit,
    /// Above 1.
    AboveOne,
}

/// A float input that is differentiated, or a constant.
enum Value {
    Float(&'static [usize], Range),
    Constant(Tensor),
    Absent,
}

fn any(shape: &'static [usize]) -> Value {
    Value::Float(shape, Range::Any)
}

fn positive(shape: &'static [usize]) -> Value {
    Value::Float(shape, Range::Positive)
}

fn list(values: &[i64]) -> Value {
    Value::Constant(Tensor::list(values))
}

fn floats(shape: &[usize], values: &[f32]) -> Value {
    Value::Constant(Tensor::floats(shape, values.to_vec()).unwrap())
}

/// Distinct values in an order that looks random.
fn values(shape: &[usize], range: Range, salt: usize) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let step = [7, 11, 13, 17, 19, 23].into_iter().find(|step| !count.is_multiple_of(*step)).unwrap_or(1);
    (0..count)
        .map(|index| {
            let place = (index * step + salt) % count;
            let spread = place as f32 * 0.1 + 0.05;
            let centred = spread - (count as f32 * 0.05).floor();
            match range {
                Range::Any => centred,
                Range::Between => centred + 0.05,
                Range::Positive => spread + 0.33,
                Range::Unit => (place as f32 + 0.5) / count as f32 * 1.6 - 0.8,
                Range::AboveOne => spread + 1.2,
            }
        })
        .collect()
}

/// Checks one operator over its inputs, by the output numbered `output`.
fn check(name: &str, operator: impl Into<Operator>, inputs: Vec<Value>, outputs: usize, output: usize) {
    let operator: Operator = operator.into();
    let mut graph = Graph::default();
    let mut names = Vec::new();
    let mut points = Vec::new();
    for (index, input) in inputs.into_iter().enumerate() {
        let input_name = format!("x{index}");
        match input {
            Value::Float(shape, range) => {
                let shape_of = shape.iter().map(|&side| Dimension::Fixed(side)).collect();
                graph.inputs.push(Input { name: input_name.clone(), shape: Some(shape_of), element: ElementType::F32 });
                points.push(Tensor::floats(shape, values(shape, range, index + 1)).unwrap());
                names.push(input_name);
            }
            Value::Constant(tensor) => {
                graph.constants.insert(input_name.clone(), Arc::new(tensor));
                names.push(input_name);
            }
            Value::Absent => names.push(String::new()),
        }
    }
    let results: Vec<String> = (0..outputs).map(|index| format!("y{index}")).collect();
    graph.nodes.push(Node { name: "tested".into(), operator, inputs: names, outputs: results.clone() });
    graph.outputs = vec![results[output].clone()];
    let plain = Executor::new(graph.clone(), &Device::flex()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let shape = plain.forward(&points).unwrap_or_else(|error| panic!("{name}: {error}"))[0].shape().to_vec();
    let weights: Vec<f32> = values(&shape, Range::Unit, 3).into_iter().map(|weight| weight + 0.3).collect();
    graph.constants.insert("weights".into(), Arc::new(Tensor::floats(&shape, weights.clone()).unwrap()));
    graph.nodes.push(Node {
        name: "weighted".into(),
        operator: Arithmetic::Mul.into(),
        inputs: vec![results[output].clone(), "weights".into()],
        outputs: vec!["weighted".into()],
    });
    graph.outputs = vec!["weighted".into()];
    let weighted = Executor::new(graph, &Device::flex()).unwrap();
    let (_, gradients) = weighted.forward_with_gradients(&points).unwrap_or_else(|error| panic!("{name}: {error}"));

    let value = |points: &[Tensor]| -> f64 {
        let result = plain.forward(points).unwrap();
        result[0].to_f64().iter().zip(&weights).map(|(y, w)| y * f64::from(*w)).sum()
    };
    for (index, gradient) in gradients.iter().enumerate() {
        let gradient = gradient.as_ref().unwrap_or_else(|| panic!("{name}: no gradient by input {index}"));
        let greatest = gradient.to_f32().iter().fold(0.0f32, |greatest, slope| greatest.max(slope.abs()));
        assert!(greatest.is_finite() && greatest > 0.0, "{name}: gradient by input {index} is {greatest}");
        for element in 0..points[index].len() {
            let moved = |by: f32| {
                let mut moved = points.clone();
                let mut numbers = moved[index].to_f32().into_owned();
                numbers[element] += by;
                moved[index] = Tensor::floats(points[index].shape(), numbers).unwrap();
                value(&moved)
            };
            // Two steps cancel the third derivative (Richardson).
            let (near, far) = ((moved(0.01) - moved(-0.01)) / 0.02, (moved(0.02) - moved(-0.02)) / 0.04);
            let expected = (4.0 * near - far) / 3.0;
            let got = f64::from(gradient.to_f32()[element]);
            assert!(
                (got - expected).abs() <= 4e-3 * f64::from(greatest) + 1e-3 * expected.abs(),
                "{name}: input {index}, element {element}: expected {expected}, got {got}"
            );
        }
    }
}

#[test]
fn activations() {
    for activation in [
        Activation::Relu,
        Activation::LeakyRelu { alpha: 0.1 },
        Activation::Elu { alpha: 1.5 },
        Activation::Selu { alpha: 1.67, gamma: 1.05 },
        Activation::Celu { alpha: 2.0 },
        Activation::ThresholdedRelu { alpha: 0.7 },
        Activation::Sigmoid,
        Activation::HardSigmoid { alpha: 0.3, beta: 0.45 },
        Activation::HardSwish,
        Activation::Tanh,
        Activation::Softplus,
        Activation::Softsign,
        Activation::Gelu { tanh: false },
        Activation::Gelu { tanh: true },
        Activation::Mish,
    ] {
        check(&format!("{activation:?}"), activation, vec![any(&[4, 5])], 1, 0);
    }
    check("PRelu", Activation::PRelu, vec![any(&[2, 3, 4]), any(&[3, 1])], 1, 0);
}

#[test]
fn functions_of_one_value() {
    for (function, range) in [
        (Unary::Abs, Range::Any),
        (Unary::Acos, Range::Unit),
        (Unary::Acosh, Range::AboveOne),
        (Unary::Asin, Range::Unit),
        (Unary::Asinh, Range::Any),
        (Unary::Atan, Range::Any),
        (Unary::Atanh, Range::Unit),
        (Unary::Cos, Range::Any),
        (Unary::Cosh, Range::Unit),
        (Unary::Erf, Range::Any),
        (Unary::Exp, Range::Unit),
        (Unary::Log, Range::Positive),
        (Unary::Neg, Range::Any),
        (Unary::Reciprocal, Range::Positive),
        (Unary::Sin, Range::Any),
        (Unary::Sinh, Range::Unit),
        (Unary::Sqrt, Range::Positive),
        (Unary::Tan, Range::Unit),
    ] {
        check(&format!("{function:?}"), function, vec![Value::Float(&[3, 4], range)], 1, 0);
    }
    check("Identity", Identity, vec![any(&[3])], 1, 0);
    check("Cast", Cast { to: ElementType::F32 }, vec![any(&[3])], 1, 0);
}

#[test]
fn arithmetic_with_broadcasting() {
    for function in
        [Arithmetic::Add, Arithmetic::Sub, Arithmetic::Mul, Arithmetic::Max, Arithmetic::Min, Arithmetic::Mean]
    {
        let between = |shape| Value::Float(shape, Range::Between);
        check(&format!("{function:?}"), function, vec![any(&[2, 3]), between(&[3])], 1, 0);
        check(&format!("{function:?}"), function, vec![any(&[2, 1, 2]), between(&[3, 1])], 1, 0);
    }
    check("Sum", Arithmetic::Sum, vec![any(&[2]), any(&[1]), any(&[3, 1])], 1, 0);
    check("Div", Arithmetic::Div, vec![any(&[2, 3]), positive(&[3])], 1, 0);
    check("Pow", Arithmetic::Pow, vec![positive(&[2, 2]), any(&[2])], 1, 0);
    check("Pow by 3", Arithmetic::Pow, vec![any(&[2, 2]), floats(&[], &[3.0])], 1, 0);
    check("Pow by 2", Arithmetic::Pow, vec![any(&[2, 2]), floats(&[1], &[2.0])], 1, 0);
    check("Pow by 0.5", Arithmetic::Pow, vec![positive(&[2, 2]), floats(&[1], &[0.5])], 1, 0);
    check("Clip", Clip, vec![any(&[4, 5]), floats(&[], &[-0.6]), floats(&[], &[0.5])], 1, 0);
    let mask = Tensor::new(&[2, 1], ElementType::Bool, Data::Bool(vec![true, false])).unwrap();
    check("Where", Where, vec![Value::Constant(mask), any(&[3]), any(&[2, 3])], 1, 0);
}

#[test]
fn products_of_matrices() {
    check("Gemm", Gemm::default(), vec![any(&[2, 3]), any(&[3, 4]), any(&[4])], 1, 0);
    let turned = Gemm { alpha: 0.5, beta: 2.0, transpose_a: true, transpose_b: true };
    check("Gemm, transposed", turned, vec![any(&[3, 2]), any(&[4, 3]), any(&[2, 1])], 1, 0);
    check("MatMul", MatMul, vec![any(&[2, 3]), any(&[3, 2])], 1, 0);
    check("MatMul, batched", MatMul, vec![any(&[2, 1, 2, 3]), any(&[2, 3, 2])], 1, 0);
    check("MatMul, vectors", MatMul, vec![any(&[3]), any(&[2, 3, 2])], 1, 0);
    check("MatMul, column", MatMul, vec![any(&[2, 3]), any(&[3])], 1, 0);
}

#[test]
fn convolutions() {
    let plain = || Convolution::new(2, 1, 0);
    check("Conv", plain(), vec![any(&[2, 2, 4, 3]), any(&[3, 2, 2, 2]), any(&[3])], 1, 0);
    check("Conv, stride", Convolution::new(2, 2, 1), vec![any(&[1, 2, 5, 6]), any(&[2, 2, 3, 3]), any(&[2])], 1, 0);
    check(
        "Conv, stride that leaves a rest",
        Convolution::new(2, 3, 0),
        vec![any(&[1, 1, 6, 7]), any(&[2, 1, 2, 2])],
        1,
        0,
    );
    check("Conv, groups", plain().grouped(2), vec![any(&[1, 4, 3, 3]), any(&[2, 2, 2, 2]), any(&[2])], 1, 0);
    check("Conv, depthwise", plain().grouped(3), vec![any(&[1, 3, 3, 4]), any(&[3, 1, 2, 2])], 1, 0);
    let dilated = Convolution { dilations: vec![2, 1], ..plain() };
    check("Conv, dilated", dilated, vec![any(&[1, 1, 5, 4]), any(&[2, 1, 2, 3])], 1, 0);
    let uneven = Convolution { pads: vec![0, 1, 2, 0], ..plain() };
    check("Conv, uneven padding", uneven, vec![any(&[1, 1, 3, 3]), any(&[2, 1, 3, 2])], 1, 0);
    let same = Convolution { auto_pad: AutoPad::SameUpper, pads: vec![], strides: vec![2, 2], ..plain() };
    check("Conv, same", same, vec![any(&[1, 1, 4, 5]), any(&[1, 1, 3, 2])], 1, 0);
    check("Conv, 1x1", plain(), vec![any(&[2, 3, 2, 2]), any(&[2, 3, 1, 1]), any(&[2])], 1, 0);
    check("Conv 1-D", Convolution::new(1, 2, 1), vec![any(&[2, 2, 7]), any(&[3, 2, 3]), any(&[3])], 1, 0);
    check("Conv 3-D", Convolution::new(3, 1, 1), vec![any(&[1, 2, 3, 2, 3]), any(&[2, 2, 2, 2, 2]), any(&[2])], 1, 0);
    check("Conv 3-D, stride", Convolution::new(3, 2, 0), vec![any(&[1, 1, 4, 4, 5]), any(&[2, 1, 2, 2, 2])], 1, 0);
}

#[test]
fn transposed_convolutions() {
    let base = |axes: usize, stride: usize| TransposedConvolution {
        strides: vec![stride; axes],
        groups: 1,
        ..Default::default()
    };
    check("ConvTranspose", base(2, 1), vec![any(&[1, 2, 2, 3]), any(&[2, 3, 2, 2]), any(&[3])], 1, 0);
    check("ConvTranspose, stride", base(2, 2), vec![any(&[1, 2, 2, 3]), any(&[2, 2, 3, 3])], 1, 0);
    let cut = TransposedConvolution { pads: vec![1, 0, 0, 1], output_padding: vec![1, 0], ..base(2, 2) };
    check("ConvTranspose, cut", cut, vec![any(&[1, 1, 3, 2]), any(&[1, 2, 3, 3])], 1, 0);
    let grown = TransposedConvolution { output_padding: vec![1, 1], ..base(2, 2) };
    check("ConvTranspose, grown", grown, vec![any(&[1, 1, 2, 2]), any(&[1, 1, 2, 2]), any(&[1])], 1, 0);
    let grouped = TransposedConvolution { groups: 2, dilations: vec![2, 1], ..base(2, 1) };
    check("ConvTranspose, groups and dilation", grouped, vec![any(&[1, 2, 2, 2]), any(&[2, 2, 2, 2])], 1, 0);
    check("ConvTranspose 1-D", base(1, 2), vec![any(&[2, 2, 3]), any(&[2, 1, 3]), any(&[1])], 1, 0);
    check("ConvTranspose 3-D", base(3, 2), vec![any(&[1, 1, 2, 2, 2]), any(&[1, 2, 2, 2, 2])], 1, 0);
}

#[test]
fn pools() {
    for kind in [
        PoolKind::Max,
        PoolKind::Average { include_padding: false },
        PoolKind::Average { include_padding: true },
        PoolKind::Norm { p: 2.0 },
        PoolKind::Norm { p: 3.0 },
    ] {
        check(&format!("{kind:?}"), Pool::new(kind, 2, 2, 2, 0), vec![any(&[1, 2, 4, 4])], 1, 0);
        check(&format!("{kind:?}, overlapping"), Pool::new(kind, 2, 3, 2, 1), vec![any(&[1, 1, 5, 6])], 1, 0);
        let rounded = Pool { round_up: true, ..Pool::new(kind, 2, 2, 2, 0) };
        check(&format!("{kind:?}, rounded up"), rounded, vec![any(&[1, 1, 5, 3])], 1, 0);
        let dilated = Pool { dilations: vec![2, 1], ..Pool::new(kind, 2, 2, 1, 0) };
        check(&format!("{kind:?}, dilated"), dilated, vec![any(&[1, 1, 4, 3])], 1, 0);
        check(&format!("{kind:?} 1-D"), Pool::new(kind, 1, 3, 1, 1), vec![any(&[1, 2, 6])], 1, 0);
        check(&format!("{kind:?} 3-D"), Pool::new(kind, 3, 2, 2, 0), vec![any(&[1, 1, 4, 2, 4])], 1, 0);
        check(&format!("global {kind:?}"), GlobalPool { kind }, vec![any(&[2, 2, 3, 2])], 1, 0);
    }
}

#[test]
fn normalizations() {
    let channels = || vec![any(&[2, 3, 2, 2]), positive(&[3]), any(&[3]), any(&[3]), positive(&[3])];
    check("BatchNormalization", BatchNormalization::default(), channels(), 1, 0);
    check(
        "InstanceNormalization",
        InstanceNormalization { epsilon: 1e-3 },
        vec![any(&[2, 2, 2, 3]), positive(&[2]), any(&[2])],
        1,
        0,
    );
    let layer = LayerNormalization { axis: -2, epsilon: 1e-3 };
    check("LayerNormalization", layer, vec![any(&[2, 3, 2]), any(&[3, 2]), any(&[2])], 1, 0);
    for (per_channel, scales) in [(false, &[2usize][..]), (true, &[4])] {
        let scales: &'static [usize] = if scales == [2] { &[2] } else { &[4] };
        let group = GroupNormalization { groups: 2, epsilon: 1e-3, per_channel };
        check("GroupNormalization", group, vec![any(&[2, 4, 3]), positive(scales), any(scales)], 1, 0);
    }
    let response = LocalResponseNormalization { alpha: 0.5, beta: 0.75, bias: 1.5, size: 3 };
    check("LRN", response, vec![any(&[1, 5, 2, 2])], 1, 0);
    check("MeanVarianceNormalization", MeanVarianceNormalization { axes: vec![0, 2] }, vec![any(&[2, 3, 4])], 1, 0);
}

#[test]
fn reductions() {
    use Reduction::{L1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare};
    for reduction in [L1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare] {
        let input = || if reduction == LogSum { positive(&[2, 3, 2]) } else { any(&[2, 3, 2]) };
        check(&format!("{reduction:?}"), Reduce::new(reduction, true), vec![input(), list(&[1])], 1, 0);
        check(
            &format!("{reduction:?} over two axes"),
            Reduce::new(reduction, false),
            vec![input(), list(&[-1, 0])],
            1,
            0,
        );
        check(&format!("{reduction:?} over all"), Reduce::new(reduction, false), vec![input()], 1, 0);
    }
    for logarithm in [false, true] {
        for axis in [0, 1, -1] {
            check("Softmax", Softmax { axis, logarithm, joined: false }, vec![any(&[2, 3, 2])], 1, 0);
        }
        check("Softmax of joined axes", Softmax { axis: 1, logarithm, joined: true }, vec![any(&[2, 2, 2])], 1, 0);
    }
}

#[test]
fn movements() {
    check("Reshape", Reshape { allow_zero: false }, vec![any(&[2, 3, 2]), list(&[0, -1])], 1, 0);
    check("Flatten", Flatten { axis: 2 }, vec![any(&[2, 3, 2])], 1, 0);
    check("Squeeze", Squeeze, vec![any(&[2, 1, 2]), list(&[1])], 1, 0);
    check("Unsqueeze", Unsqueeze, vec![any(&[2, 2]), list(&[0, -1])], 1, 0);
    check("Transpose", Transpose { order: vec![2, 0, 1] }, vec![any(&[2, 3, 2])], 1, 0);
    check("Concat", Concat { axis: -1 }, vec![any(&[2, 3]), any(&[2, 1]), any(&[2, 2])], 1, 0);
    check("Split", Split { axis: 1, counted: false }, vec![any(&[2, 5]), list(&[2, 3])], 2, 1);
    check("Slice", Slice, vec![any(&[4, 5]), list(&[1, 0]), list(&[3, 4])], 1, 0);
    check(
        "Slice, steps",
        Slice,
        vec![any(&[4, 5]), list(&[-1, 0]), list(&[-9, 5]), list(&[0, 1]), list(&[-2, 3])],
        1,
        0,
    );
    check("Expand", Expand, vec![any(&[3, 1]), list(&[2, 1, 2])], 1, 0);
    check("Tile", Tile, vec![any(&[2, 2]), list(&[2, 3])], 1, 0);
    check("DepthToSpace", DepthToSpace { block: 2, channel_first: false }, vec![any(&[1, 8, 1, 2])], 1, 0);
    check("DepthToSpace", DepthToSpace { block: 2, channel_first: true }, vec![any(&[1, 8, 1, 2])], 1, 0);
    check("SpaceToDepth", SpaceToDepth { block: 2 }, vec![any(&[1, 2, 2, 4])], 1, 0);
    for mode in [PadMode::Constant, PadMode::Edge, PadMode::Reflect, PadMode::Wrap] {
        check(&format!("Pad {mode:?}"), Pad { mode }, vec![any(&[3, 4]), list(&[2, 1, 0, 3])], 1, 0);
        check(
            &format!("Pad {mode:?}, cut"),
            Pad { mode },
            vec![any(&[3, 4]), list(&[1, -1]), Value::Absent, list(&[1])],
            1,
            0,
        );
    }
}

#[test]
fn indices() {
    check("Gather", Gather { axis: 1 }, vec![any(&[2, 3, 2]), list(&[2, 0, 0])], 1, 0);
    let indices = Tensor::list(&[0, -1, 1, 0]).reshaped(&[2, 2]).unwrap();
    check("GatherElements", GatherElements { axis: 0 }, vec![any(&[3, 2]), Value::Constant(indices.clone())], 1, 0);
    check("GatherND", GatherNd { batch_axes: 0 }, vec![any(&[2, 2, 3]), Value::Constant(indices)], 1, 0);
    let batched = Tensor::list(&[1, 0]).reshaped(&[2, 1]).unwrap();
    check("GatherND, batched", GatherNd { batch_axes: 1 }, vec![any(&[2, 2, 3]), Value::Constant(batched)], 1, 0);
}

#[test]
fn resampling() {
    let scales = || floats(&[4], &[1.0, 1.0, 2.0, 1.5]);
    for mode in [ResizeMode::Nearest, ResizeMode::Linear, ResizeMode::Cubic] {
        for coordinates in [
            Coordinates::HalfPixel,
            Coordinates::HalfPixelSymmetric,
            Coordinates::PytorchHalfPixel,
            Coordinates::AlignCorners,
            Coordinates::Asymmetric,
        ] {
            let resize = Resize { coordinates, ..Resize::new(mode) };
            let name = format!("Resize {mode:?} {coordinates:?}");
            check(&name, resize.clone(), vec![any(&[1, 1, 3, 4]), Value::Absent, scales()], 1, 0);
            check(&name, resize, vec![any(&[1, 1, 5, 4]), Value::Absent, Value::Absent, list(&[1, 1, 3, 2])], 1, 0);
        }
    }
    let antialiased = Resize { antialias: true, ..Resize::new(ResizeMode::Linear) };
    check(
        "Resize, antialiased",
        antialiased,
        vec![any(&[1, 1, 6, 5]), Value::Absent, Value::Absent, list(&[1, 1, 3, 2])],
        1,
        0,
    );
    let volume = Resize::new(ResizeMode::Linear);
    check(
        "Resize 3-D",
        volume,
        vec![any(&[1, 1, 2, 2, 2]), Value::Absent, floats(&[5], &[1.0, 1.0, 2.0, 2.0, 2.0])],
        1,
        0,
    );
}

#[test]
fn scatter_and_selection() {
    use ScatterReduction::{Add, Max, Min, Mul, Replace};
    let twice = || Value::Constant(Tensor::list(&[0, 2, 0, 1, 2, 0]).reshaped(&[3, 2]).unwrap());
    let once = || Value::Constant(Tensor::list(&[0, 2, 3, 1]).reshaped(&[2, 2]).unwrap());
    let tuples = |values: &[i64], shape: &[usize]| Value::Constant(Tensor::list(values).reshaped(shape).unwrap());
    let between = |shape| Value::Float(shape, Range::Between);
    check(
        "ScatterElements",
        ScatterElements { axis: 0, reduction: Replace },
        vec![any(&[4, 2]), once(), between(&[2, 2])],
        1,
        0,
    );
    check(
        "ScatterND",
        ScatterNd { reduction: Replace },
        vec![any(&[3, 2]), tuples(&[2, 0], &[2, 1]), between(&[2, 2])],
        1,
        0,
    );
    for reduction in [Add, Mul] {
        check(
            &format!("{reduction:?}"),
            ScatterElements { axis: 0, reduction },
            vec![any(&[4, 2]), twice(), between(&[3, 2])],
            1,
            0,
        );
        check(
            &format!("{reduction:?}"),
            ScatterNd { reduction },
            vec![any(&[3]), tuples(&[1, 1, 0], &[3, 1]), between(&[3])],
            1,
            0,
        );
    }
    for reduction in [Max, Min] {
        check(
            &format!("{reduction:?}"),
            ScatterElements { axis: 0, reduction },
            vec![any(&[4, 2]), once(), between(&[2, 2])],
            1,
            0,
        );
    }
    check("TopK", TopK { axis: 1, greatest: true }, vec![any(&[2, 5]), list(&[3])], 2, 0);
    check("TopK, least", TopK { axis: 0, greatest: false }, vec![any(&[4, 2]), list(&[2])], 2, 0);
    check("Trilu", Trilu { upper: true }, vec![any(&[2, 3, 3]), list(&[1])], 1, 0);
    check("Trilu, lower", Trilu { upper: false }, vec![any(&[3, 4])], 1, 0);
    check("OneHot", OneHot { axis: 0 }, vec![list(&[1, 0, 5]), list(&[3]), any(&[2])], 1, 0);
    check("ReverseSequence", ReverseSequence { batch_axis: 1, time_axis: 0 }, vec![any(&[4, 2]), list(&[3, 2])], 1, 0);
    let kept = Tensor::new(&[3], ElementType::Bool, Data::Bool(vec![true, false, true])).unwrap();
    check("Compress", Compress { axis: Some(1) }, vec![any(&[2, 3]), Value::Constant(kept)], 1, 0);
    for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
        check("CumSum", CumulativeSum { exclusive, reverse }, vec![any(&[2, 4]), list(&[1])], 1, 0);
    }
}

#[test]
fn sums_of_products() {
    let einsum = |equation: &str| Einsum { equation: equation.into() };
    check("matrices", einsum("bij,bjk->bik"), vec![any(&[2, 2, 3]), any(&[2, 3, 2])], 1, 0);
    check("diagonal", einsum("bii->bi"), vec![any(&[2, 3, 3])], 1, 0);
    check("sum", einsum("ij->i"), vec![any(&[2, 3])], 1, 0);
    check("implicit", einsum("ij,jk"), vec![any(&[2, 3]), any(&[3, 2])], 1, 0);
    check("outer", einsum("i,j->ji"), vec![any(&[2]), any(&[3])], 1, 0);
    check("ellipsis", einsum("...ij,...j->...i"), vec![any(&[2, 2, 3]), any(&[1, 3])], 1, 0);
    check("three", einsum("ij,jk,kl->il"), vec![any(&[2, 2]), any(&[2, 3]), any(&[3, 2])], 1, 0);
    check("axis of one operand", einsum("ijk,jl->il"), vec![any(&[2, 2, 3]), any(&[2, 2])], 1, 0);
}

#[test]
fn recurrent_layers() {
    let layer = |cell: Cell, direction: Direction| Recurrent {
        cell,
        direction,
        hidden: 2,
        batch_first: false,
        clip: 0.0,
        activations: Vec::new(),
    };
    let unit = |shape| Value::Float(shape, Range::Unit);
    let x = || unit(&[3, 2, 2]);
    check(
        "RNN",
        layer(Cell::Plain, Direction::Forward),
        vec![x(), unit(&[1, 2, 2]), unit(&[1, 2, 2]), unit(&[1, 4])],
        2,
        0,
    );
    check(
        "RNN, last state",
        layer(Cell::Plain, Direction::Reverse),
        vec![x(), unit(&[1, 2, 2]), unit(&[1, 2, 2])],
        2,
        1,
    );
    for reset_after in [false, true] {
        let gru = layer(Cell::Gru { reset_after }, Direction::Forward);
        let inputs = vec![x(), unit(&[1, 6, 2]), unit(&[1, 6, 2]), unit(&[1, 12]), Value::Absent, unit(&[1, 2, 2])];
        check("GRU", gru, inputs, 2, 0);
    }
    for coupled in [false, true] {
        let lstm = layer(Cell::Lstm { coupled }, Direction::Forward);
        let inputs = vec![
            x(),
            unit(&[1, 8, 2]),
            unit(&[1, 8, 2]),
            unit(&[1, 16]),
            list(&[3, 2]),
            unit(&[1, 2, 2]),
            unit(&[1, 2, 2]),
        ];
        check("LSTM", lstm, inputs, 3, 0);
    }
    let lstm = layer(Cell::Lstm { coupled: false }, Direction::Bidirectional);
    let inputs = || {
        vec![
            x(),
            unit(&[2, 8, 2]),
            unit(&[2, 8, 2]),
            Value::Absent,
            Value::Absent,
            Value::Absent,
            Value::Absent,
            unit(&[2, 6]),
        ]
    };
    check("LSTM, both directions and peepholes", lstm.clone(), inputs(), 3, 0);
    check("LSTM, last cell", lstm, inputs(), 3, 2);
    let batch_first = Recurrent { batch_first: true, ..layer(Cell::Gru { reset_after: true }, Direction::Forward) };
    check("GRU, batch first", batch_first, vec![unit(&[2, 3, 2]), unit(&[1, 6, 2]), unit(&[1, 6, 2])], 2, 0);
}

#[test]
fn samples_between_elements() {
    let deformed = DeformableConvolution { groups: 1, offset_groups: 1, pads: vec![1, 0, 1, 0], ..Default::default() };
    // Offsets in steps of 0.1 shifted by 0.05 never meet an element, where the derivative jumps.
    let offsets = Value::Float(&[1, 8, 4, 2], Range::Unit);
    let inputs =
        vec![any(&[1, 2, 3, 3]), any(&[2, 2, 2, 2]), offsets, any(&[2]), Value::Float(&[1, 4, 4, 2], Range::Positive)];
    check("DeformConv", deformed, inputs, 1, 0);
    let regions = || floats(&[2, 4], &[0.3, 0.2, 3.1, 2.9, 1.0, 0.5, 2.0, 3.6]);
    for greatest in [false, true] {
        for samples in [0, 2] {
            let align = RegionAlign { size: (2, 2), samples, scale: 1.0, greatest, half_pixel: true };
            check("RoiAlign", align, vec![positive(&[2, 2, 4, 4]), regions(), list(&[0, 1])], 1, 0);
        }
    }
}

/// Rounding passes the gradient straight through inside the range, and nothing outside.
#[test]
fn quantisation_is_straight_through() {
    let graph = Graph {
        inputs: vec![Input::batch("x", &[4])],
        outputs: vec!["y".into()],
        nodes: vec![
            Node {
                name: "quantise".into(),
                operator: QuantizeLinear { axis: 1, block: 0, element: None }.into(),
                inputs: vec!["x".into(), "scale".into(), "zero".into()],
                outputs: vec!["q".into()],
            },
            Node {
                name: "back".into(),
                operator: DequantizeLinear { axis: 1, block: 0 }.into(),
                inputs: vec!["q".into(), "scale".into(), "zero".into()],
                outputs: vec!["y".into()],
            },
        ],
        constants: [
            ("scale".to_owned(), Arc::new(Tensor::scalar(0.5))),
            ("zero".to_owned(), Arc::new(Tensor::new(&[], ElementType::I8, Data::Integer(vec![10])).unwrap())),
        ]
        .into(),
        ..Graph::default()
    };
    let executor = Executor::new(graph, &Device::flex()).unwrap();
    let input = Tensor::floats(&[1, 4], vec![0.6, -0.7, 100.0, -100.0]).unwrap();
    let (outputs, gradients) = executor.forward_with_gradients(&[input]).unwrap();
    assert_eq!(outputs[0].to_f32().as_ref(), [0.5, -0.5, 58.5, -69.0]);
    assert_eq!(gradients[0].as_ref().unwrap().to_f32().as_ref(), [1.0, 1.0, 0.0, 0.0]);
}

/// The rules of the module `operators` for points without a derivative.
#[test]
fn kinks_follow_the_documented_rule() {
    let slope = |operator: Operator, constants: Vec<(&str, Tensor)>, x: &[f32]| -> Vec<f32> {
        let mut graph = Graph {
            inputs: vec![Input { name: "x".into(), shape: None, element: ElementType::F32 }],
            ..Graph::default()
        };
        let mut inputs = vec!["x".to_owned()];
        for (name, tensor) in constants {
            graph.constants.insert(name.into(), Arc::new(tensor));
            inputs.push(name.into());
        }
        graph.nodes.push(Node { name: "n".into(), operator, inputs, outputs: vec!["y".into()] });
        graph.outputs = vec!["y".into()];
        let executor = Executor::new(graph, &Device::flex()).unwrap();
        let input = Tensor::floats(&[1, 1, x.len()], x.to_vec()).unwrap();
        executor.forward_with_gradients(&[input]).unwrap().1[0].as_ref().unwrap().to_f32().into_owned()
    };
    assert_eq!(slope(Activation::Relu.into(), vec![], &[0.0, 1.0, -1.0]), [0.0, 1.0, 0.0]);
    assert_eq!(slope(Activation::LeakyRelu { alpha: 0.25 }.into(), vec![], &[0.0]), [0.25]);
    assert_eq!(slope(Activation::ThresholdedRelu { alpha: 1.0 }.into(), vec![], &[1.0]), [0.0]);
    assert_eq!(slope(Unary::Abs.into(), vec![], &[0.0]), [0.0]);
    let limits = || vec![("low", Tensor::scalar(-1.0)), ("high", Tensor::scalar(1.0))];
    assert_eq!(slope(Clip.into(), limits(), &[-1.0, 1.0, 1.5]), [1.0, 1.0, 0.0]);
    assert_eq!(
        slope(Activation::HardSigmoid { alpha: 0.5, beta: 0.5 }.into(), vec![], &[-1.0, 1.0, 2.0]),
        [0.5, 0.5, 0.0]
    );
    assert_eq!(slope(Pool::new(PoolKind::Max, 1, 3, 3, 0).into(), vec![], &[1.0, 2.0, 2.0]), [0.0, 1.0, 0.0]);
    assert_eq!(
        slope(Reduce::new(Reduction::Max, true).into(), vec![("axes", Tensor::list(&[2]))], &[1.0, 2.0, 2.0]),
        [0.0, 1.0, 0.0]
    );
    assert_eq!(
        slope(Reduce::new(Reduction::Min, true).into(), vec![("axes", Tensor::list(&[2]))], &[1.0, 1.0, 2.0]),
        [1.0, 0.0, 0.0]
    );
    assert_eq!(slope(GlobalPool { kind: PoolKind::Max }.into(), vec![], &[2.0, 2.0]), [1.0, 0.0]);
    assert_eq!(
        slope(
            Arithmetic::Max.into(),
            vec![("other", Tensor::floats(&[1, 1, 2], vec![0.0, 1.0]).unwrap())],
            &[0.0, 0.0]
        ),
        [1.0, 0.0]
    );
    assert_eq!(slope(Unary::Floor.into(), vec![], &[0.5]), [0.0]);
}

#[test]
fn where_no_gradient_passes_the_node_is_named() {
    let graph = Graph {
        inputs: vec![Input::batch("x", &[2])],
        outputs: vec!["y".into()],
        nodes: vec![
            Node {
                name: "compare".into(),
                operator: Comparison::Greater.into(),
                inputs: vec!["x".into(), "zero".into()],
                outputs: vec!["mask".into()],
            },
            Node {
                name: "number".into(),
                operator: Cast { to: ElementType::F32 }.into(),
                inputs: vec!["mask".into()],
                outputs: vec!["y".into()],
            },
        ],
        constants: [("zero".to_owned(), Arc::new(Tensor::scalar(0.0)))].into(),
        ..Graph::default()
    };
    let executor = Executor::new(graph, &Device::flex()).unwrap();
    let input = Tensor::floats(&[1, 2], vec![1.0, -1.0]).unwrap();
    assert_eq!(executor.forward(std::slice::from_ref(&input)).unwrap()[0].to_f32().as_ref(), [1.0, 0.0]);
    let message = executor.forward_with_gradients(&[input]).unwrap_err().to_string();
    assert!(message.contains("`compare` (Greater)"), "{message}");
}
