//! The gradient of every operator by each of its float inputs, against central differences.
//!
//! Inputs are multiples of 0.1, shifted by 0.05 and shuffled, so that no value stands at a kink and no two are equal. Each
//! element is moved by ±0.01; outputs are weighted and summed in 64 bits.

use std::sync::Arc;

use nocebo_graph::operators::{
    self, Activation, ArgExtreme, Arithmetic, AutoPad, BatchNormalization, Cast, Cell, Clip, Comparison, Compress,
    Concat, ConstantOfShape, Convolution, Coordinates, CumulativeSum, DeformableConvolution, DepthToSpace,
    DequantizeLinear, Derivative, Direction, Dropout, DynamicQuantizeLinear, Einsum, Expand, Flatten, Gather,
    GatherElements, GatherNd, Gemm, GlobalPool, GroupNormalization, Identity, InstanceNormalization,
    LayerNormalization, LocalResponseNormalization, MatMul, MeanVarianceNormalization, NonZero, OneHot, Operator, Pad,
    PadMode, Pool, PoolKind, QuantizeLinear, QuantizedProduct, Recurrent, Reduce, Reduction, RegionAlign, Reshape,
    Resize, ResizeMode, ReverseSequence, ScatterElements, ScatterNd, ScatterReduction, Shape, Size, Slice, Softmax,
    SpaceToDepth, Split, Squeeze, Tile, TopK, Transpose, TransposedConvolution, Trilu, Unary, Unsqueeze, Where,
};
use nocebo_graph::tensor::Data;
use nocebo_graph::{Device, Dimension, ElementType, Executor, Graph, Input, Node, Tensor};
use rayon::prelude::*;

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

/// A float input that is differentiated (and quantised first, where the operator takes integers), or a constant.
enum Value {
    Float(&'static [usize], Range),
    Quantised(&'static [usize]),
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

fn integers(element: ElementType, shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::new(shape, element, Data::Integer(values.to_vec())).unwrap()
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

/// One operator with inputs, and which of its outputs is looked at.
pub(crate) struct Case {
    name: String,
    pub(crate) operator: Operator,
    inputs: Vec<Value>,
    outputs: usize,
    output: usize,
}

/// The table that is filled below.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, name: &str, operator: impl Into<Operator>, inputs: Vec<Value>, outputs: usize, output: usize) {
        self.0.push(Case { name: name.into(), operator: operator.into(), inputs, outputs, output });
    }
}

/// Every operator, each over several shapes and attributes.
pub(crate) fn cases() -> Vec<Case> {
    let families = [
        activations,
        functions_of_one_value,
        arithmetic_with_broadcasting,
        products_of_matrices,
        convolutions,
        transposed_convolutions,
        pools,
        normalizations,
        reductions,
        movements,
        indices,
        resampling,
        scatter_and_selection,
        sums_of_products,
        recurrent_layers,
        samples_between_elements,
        steps,
        ends,
        quantisation,
    ];
    let mut cases = Cases::default();
    for family in families {
        family(&mut cases);
    }
    cases.0
}

/// A graph with one node, its inputs and their values.
impl Case {
    fn graph(&self) -> (Graph, Vec<Tensor>) {
        let mut graph = Graph::default();
        let mut names = Vec::new();
        let mut points = Vec::new();
        for (index, input) in self.inputs.iter().enumerate() {
            let name = format!("x{index}");
            match input {
                Value::Float(shape, _) | Value::Quantised(shape) => {
                    let range = if let Value::Float(_, range) = input { *range } else { Range::Any };
                    let sides = shape.iter().map(|&side| Dimension::Fixed(side)).collect();
                    graph.inputs.push(Input { name: name.clone(), shape: Some(sides), element: ElementType::F32 });
                    points.push(Tensor::floats(shape, values(shape, range, index + 1)).unwrap());
                    if matches!(input, Value::Quantised(_)) {
                        graph.constants.insert("scale".into(), Arc::new(Tensor::scalar(SCALE)));
                        graph.constants.insert("zero".into(), Arc::new(integers(ElementType::I16, &[], &[0])));
                        let quantise = QuantizeLinear { axis: 0, block: 0, element: None };
                        let quantised = format!("{name}.quantised");
                        let inputs = [&name, "scale", "zero"].map(str::to_owned).to_vec();
                        graph.nodes.push(node(&format!("{name}.quantise"), quantise, inputs, vec![quantised.clone()]));
                        names.push(quantised);
                    } else {
                        names.push(name);
                    }
                }
                Value::Constant(tensor) => {
                    graph.constants.insert(name.clone(), Arc::new(tensor.clone()));
                    names.push(name);
                }
                Value::Absent => names.push(String::new()),
            }
        }
        let results: Vec<String> = (0..self.outputs).map(|index| format!("y{index}")).collect();
        graph.outputs = vec![results[self.output].clone()];
        graph.nodes.push(node("tested", self.operator.clone(), names, results));
        (graph, points)
    }

    fn check(&self) {
        let name = &self.name;
        let (graph, points) = self.graph();
        let plain = Executor::new(graph.clone(), &Device::flex()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let result = plain.forward(&points).unwrap_or_else(|error| panic!("{name}: {error}"));
        let shape = result[0].shape();
        let weights: Vec<f32> = values(shape, Range::Unit, 3).into_iter().map(|weight| weight + 0.3).collect();
        let weighted = weighted(graph, Tensor::floats(shape, weights.clone()).unwrap());
        let gradients = weighted.forward_with_gradients(&points).map(|(_, gradients)| gradients);
        match self.operator.derivative() {
            Derivative::Exact | Derivative::Estimated => {
                let gradients = gradients.unwrap_or_else(|error| panic!("{name}: {error}"));
                self.compare(&plain, &points, &weights, &gradients);
            }
            Derivative::Zero => {
                for gradient in gradients.unwrap_or_else(|error| panic!("{name}: {error}")) {
                    assert!(gradient.unwrap().to_f32().iter().all(|&slope| slope == 0.0), "{name}");
                }
            }
            Derivative::None => {
                let message = gradients.expect_err(name).to_string();
                let named = format!("`tested` ({})", self.operator.name());
                // What follows from shapes alone is computed before the graph runs.
                assert!(message.contains(&named) || message.contains("does not depend"), "{name}: {message}");
            }
        }
    }

    /// Compares gradients with central differences, element by element.
    fn compare(&self, plain: &Executor, points: &[Tensor], weights: &[f32], gradients: &[Option<Tensor>]) {
        let name = &self.name;
        let value = |points: &[Tensor]| -> f64 {
            let result = plain.forward(points).unwrap();
            result[0].to_f64().iter().zip(weights).map(|(y, w)| y * f64::from(*w)).sum()
        };
        for (index, gradient) in gradients.iter().enumerate() {
            let gradient = gradient.as_ref().unwrap_or_else(|| panic!("{name}: no gradient by input {index}"));
            let greatest = gradient.to_f32().iter().fold(0.0f32, |greatest, slope| greatest.max(slope.abs()));
            assert!(greatest.is_finite() && greatest > 0.0, "{name}: gradient by input {index} is {greatest}");
            for element in 0..points[index].len() {
                let moved = |by: f32| {
                    let mut moved = points.to_vec();
                    let mut numbers = moved[index].to_f32().into_owned();
                    numbers[element] += by;
                    moved[index] = Tensor::floats(points[index].shape(), numbers).unwrap();
                    value(&moved)
                };
                let expected = if self.operator.derivative() == Derivative::Estimated {
                    // Steps of `SCALE` move a quantised value by whole integers, so this difference is free of rounding.
                    (moved(SCALE) - moved(-SCALE)) / f64::from(2.0 * SCALE)
                } else {
                    // Two steps cancel the third derivative (Richardson).
                    let (near, far) = ((moved(0.01) - moved(-0.01)) / 0.02, (moved(0.02) - moved(-0.02)) / 0.04);
                    (4.0 * near - far) / 3.0
                };
                let got = f64::from(gradient.to_f32()[element]);
                assert!(
                    (got - expected).abs() <= 4e-3 * f64::from(greatest) + 1e-3 * expected.abs(),
                    "{name}: input {index}, element {element}: expected {expected}, got {got}"
                );
            }
        }
    }
}

/// Adds a node that casts the output to floats and one that weights its elements.
fn weighted(mut graph: Graph, weights: Tensor) -> Executor {
    let output = graph.outputs[0].clone();
    graph.constants.insert("weights".into(), Arc::new(weights));
    graph.nodes.push(node("cast", Cast { to: ElementType::F32 }, vec![output], vec!["floats".into()]));
    let inputs = vec!["floats".into(), "weights".into()];
    graph.nodes.push(node("weighted", Arithmetic::Mul, inputs, vec!["weighted".into()]));
    graph.outputs = vec!["weighted".into()];
    Executor::new(graph, &Device::flex()).unwrap()
}

/// Scale of the quantised values.
const SCALE: f32 = 0.25;

fn node(name: &str, operator: impl Into<Operator>, inputs: Vec<String>, outputs: Vec<String>) -> Node {
    Node { name: name.into(), operator: operator.into(), inputs, outputs }
}

#[test]
fn gradients_agree_with_central_differences() {
    cases().par_iter().for_each(Case::check);
}

fn activations(cases: &mut Cases) {
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
        cases.add(&format!("{activation:?}"), activation, vec![any(&[4, 5])], 1, 0);
    }
    cases.add("PRelu", Activation::PRelu, vec![any(&[2, 3, 4]), any(&[3, 1])], 1, 0);
}

fn functions_of_one_value(cases: &mut Cases) {
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
        cases.add(&format!("{function:?}"), function, vec![Value::Float(&[3, 4], range)], 1, 0);
    }
    cases.add("Dropout", Dropout, vec![any(&[3])], 1, 0);
    cases.add("Identity", Identity, vec![any(&[3])], 1, 0);
    cases.add("Cast", Cast { to: ElementType::F32 }, vec![any(&[3])], 1, 0);
}

fn arithmetic_with_broadcasting(cases: &mut Cases) {
    for function in
        [Arithmetic::Add, Arithmetic::Sub, Arithmetic::Mul, Arithmetic::Max, Arithmetic::Min, Arithmetic::Mean]
    {
        let between = |shape| Value::Float(shape, Range::Between);
        cases.add(&format!("{function:?}"), function, vec![any(&[2, 3]), between(&[3])], 1, 0);
        cases.add(&format!("{function:?}"), function, vec![any(&[2, 1, 2]), between(&[3, 1])], 1, 0);
    }
    cases.add("Sum", Arithmetic::Sum, vec![any(&[2]), any(&[1]), any(&[3, 1])], 1, 0);
    cases.add("Div", Arithmetic::Div, vec![any(&[2, 3]), positive(&[3])], 1, 0);
    cases.add("Pow", Arithmetic::Pow, vec![positive(&[2, 2]), any(&[2])], 1, 0);
    cases.add("Pow by 3", Arithmetic::Pow, vec![any(&[2, 2]), floats(&[], &[3.0])], 1, 0);
    cases.add("Pow by 2", Arithmetic::Pow, vec![any(&[2, 2]), floats(&[1], &[2.0])], 1, 0);
    cases.add("Pow by 0.5", Arithmetic::Pow, vec![positive(&[2, 2]), floats(&[1], &[0.5])], 1, 0);
    cases.add("Clip", Clip, vec![any(&[4, 5]), floats(&[], &[-0.6]), floats(&[], &[0.5])], 1, 0);
    let mask = Tensor::new(&[2, 1], ElementType::Bool, Data::Bool(vec![true, false])).unwrap();
    cases.add("Where", Where, vec![Value::Constant(mask), any(&[3]), any(&[2, 3])], 1, 0);
}

fn products_of_matrices(cases: &mut Cases) {
    cases.add("Gemm", Gemm::default(), vec![any(&[2, 3]), any(&[3, 4]), any(&[4])], 1, 0);
    let turned = Gemm { alpha: 0.5, beta: 2.0, transpose_a: true, transpose_b: true };
    cases.add("Gemm, transposed", turned, vec![any(&[3, 2]), any(&[4, 3]), any(&[2, 1])], 1, 0);
    cases.add("MatMul", MatMul, vec![any(&[2, 3]), any(&[3, 2])], 1, 0);
    cases.add("MatMul, batched", MatMul, vec![any(&[2, 1, 2, 3]), any(&[2, 3, 2])], 1, 0);
    cases.add("MatMul, vectors", MatMul, vec![any(&[3]), any(&[2, 3, 2])], 1, 0);
    cases.add("MatMul, column", MatMul, vec![any(&[2, 3]), any(&[3])], 1, 0);
}

fn convolutions(cases: &mut Cases) {
    let plain = || Convolution::new(2, 1, 0);
    cases.add("Conv", plain(), vec![any(&[2, 2, 4, 3]), any(&[3, 2, 2, 2]), any(&[3])], 1, 0);
    cases.add("Conv, stride", Convolution::new(2, 2, 1), vec![any(&[1, 2, 5, 6]), any(&[2, 2, 3, 3]), any(&[2])], 1, 0);
    cases.add(
        "Conv, stride that leaves a rest",
        Convolution::new(2, 3, 0),
        vec![any(&[1, 1, 6, 7]), any(&[2, 1, 2, 2])],
        1,
        0,
    );
    cases.add("Conv, groups", plain().grouped(2), vec![any(&[1, 4, 3, 3]), any(&[2, 2, 2, 2]), any(&[2])], 1, 0);
    cases.add("Conv, depthwise", plain().grouped(3), vec![any(&[1, 3, 3, 4]), any(&[3, 1, 2, 2])], 1, 0);
    let dilated = Convolution { dilations: vec![2, 1], ..plain() };
    cases.add("Conv, dilated", dilated, vec![any(&[1, 1, 5, 4]), any(&[2, 1, 2, 3])], 1, 0);
    let uneven = Convolution { pads: vec![0, 1, 2, 0], ..plain() };
    cases.add("Conv, uneven padding", uneven, vec![any(&[1, 1, 3, 3]), any(&[2, 1, 3, 2])], 1, 0);
    let same = Convolution { auto_pad: AutoPad::SameUpper, pads: vec![], strides: vec![2, 2], ..plain() };
    cases.add("Conv, same", same, vec![any(&[1, 1, 4, 5]), any(&[1, 1, 3, 2])], 1, 0);
    cases.add("Conv, 1x1", plain(), vec![any(&[2, 3, 2, 2]), any(&[2, 3, 1, 1]), any(&[2])], 1, 0);
    cases.add("Conv 1-D", Convolution::new(1, 2, 1), vec![any(&[2, 2, 7]), any(&[3, 2, 3]), any(&[3])], 1, 0);
    cases.add(
        "Conv 3-D",
        Convolution::new(3, 1, 1),
        vec![any(&[1, 2, 3, 2, 3]), any(&[2, 2, 2, 2, 2]), any(&[2])],
        1,
        0,
    );
    cases.add("Conv 3-D, stride", Convolution::new(3, 2, 0), vec![any(&[1, 1, 4, 4, 5]), any(&[2, 1, 2, 2, 2])], 1, 0);
}

fn transposed_convolutions(cases: &mut Cases) {
    let base = |axes: usize, stride: usize| TransposedConvolution {
        strides: vec![stride; axes],
        groups: 1,
        ..Default::default()
    };
    cases.add("ConvTranspose", base(2, 1), vec![any(&[1, 2, 2, 3]), any(&[2, 3, 2, 2]), any(&[3])], 1, 0);
    cases.add("ConvTranspose, stride", base(2, 2), vec![any(&[1, 2, 2, 3]), any(&[2, 2, 3, 3])], 1, 0);
    let cut = TransposedConvolution { pads: vec![1, 0, 0, 1], output_padding: vec![1, 0], ..base(2, 2) };
    cases.add("ConvTranspose, cut", cut, vec![any(&[1, 1, 3, 2]), any(&[1, 2, 3, 3])], 1, 0);
    let grown = TransposedConvolution { output_padding: vec![1, 1], ..base(2, 2) };
    cases.add("ConvTranspose, grown", grown, vec![any(&[1, 1, 2, 2]), any(&[1, 1, 2, 2]), any(&[1])], 1, 0);
    let grouped = TransposedConvolution { groups: 2, dilations: vec![2, 1], ..base(2, 1) };
    cases.add("ConvTranspose, groups and dilation", grouped, vec![any(&[1, 2, 2, 2]), any(&[2, 2, 2, 2])], 1, 0);
    cases.add("ConvTranspose 1-D", base(1, 2), vec![any(&[2, 2, 3]), any(&[2, 1, 3]), any(&[1])], 1, 0);
    cases.add("ConvTranspose 3-D", base(3, 2), vec![any(&[1, 1, 2, 2, 2]), any(&[1, 2, 2, 2, 2])], 1, 0);
}

fn pools(cases: &mut Cases) {
    for kind in [
        PoolKind::Max,
        PoolKind::Average { include_padding: false },
        PoolKind::Average { include_padding: true },
        PoolKind::Norm { p: 2.0 },
        PoolKind::Norm { p: 3.0 },
    ] {
        cases.add(&format!("{kind:?}"), Pool::new(kind, 2, 2, 2, 0), vec![any(&[1, 2, 4, 4])], 1, 0);
        cases.add(&format!("{kind:?}, overlapping"), Pool::new(kind, 2, 3, 2, 1), vec![any(&[1, 1, 5, 6])], 1, 0);
        let rounded = Pool { round_up: true, ..Pool::new(kind, 2, 2, 2, 0) };
        cases.add(&format!("{kind:?}, rounded up"), rounded, vec![any(&[1, 1, 5, 3])], 1, 0);
        let dilated = Pool { dilations: vec![2, 1], ..Pool::new(kind, 2, 2, 1, 0) };
        cases.add(&format!("{kind:?}, dilated"), dilated, vec![any(&[1, 1, 4, 3])], 1, 0);
        cases.add(&format!("{kind:?} 1-D"), Pool::new(kind, 1, 3, 1, 1), vec![any(&[1, 2, 6])], 1, 0);
        cases.add(&format!("{kind:?} 3-D"), Pool::new(kind, 3, 2, 2, 0), vec![any(&[1, 1, 4, 2, 4])], 1, 0);
        let overlapping = Pool::new(kind, 3, 3, 2, 1);
        cases.add(&format!("{kind:?} 3-D, overlapping"), overlapping, vec![any(&[1, 1, 3, 4, 5])], 1, 0);
        cases.add(&format!("global {kind:?}"), GlobalPool { kind }, vec![any(&[2, 2, 3, 2])], 1, 0);
    }
}

fn normalizations(cases: &mut Cases) {
    let channels = || vec![any(&[2, 3, 2, 2]), positive(&[3]), any(&[3]), any(&[3]), positive(&[3])];
    cases.add("BatchNormalization", BatchNormalization::default(), channels(), 1, 0);
    cases.add(
        "InstanceNormalization",
        InstanceNormalization { epsilon: 1e-3 },
        vec![any(&[2, 2, 2, 3]), positive(&[2]), any(&[2])],
        1,
        0,
    );
    let layer = LayerNormalization { axis: -2, epsilon: 1e-3 };
    cases.add("LayerNormalization", layer, vec![any(&[2, 3, 2]), any(&[3, 2]), any(&[2])], 1, 0);
    for (per_channel, scales) in [(false, &[2usize][..]), (true, &[4])] {
        let scales: &'static [usize] = if scales == [2] { &[2] } else { &[4] };
        let group = GroupNormalization { groups: 2, epsilon: 1e-3, per_channel };
        cases.add("GroupNormalization", group, vec![any(&[2, 4, 3]), positive(scales), any(scales)], 1, 0);
    }
    let response = LocalResponseNormalization { alpha: 0.5, beta: 0.75, bias: 1.5, size: 3 };
    cases.add("LRN", response, vec![any(&[1, 5, 2, 2])], 1, 0);
    cases.add("MeanVarianceNormalization", MeanVarianceNormalization { axes: vec![0, 2] }, vec![any(&[2, 3, 4])], 1, 0);
}

fn reductions(cases: &mut Cases) {
    use Reduction::{L1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare};
    for reduction in [L1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare] {
        let input = || if reduction == LogSum { positive(&[2, 3, 2]) } else { any(&[2, 3, 2]) };
        cases.add(&format!("{reduction:?}"), Reduce::new(reduction, true), vec![input(), list(&[1])], 1, 0);
        cases.add(
            &format!("{reduction:?} over two axes"),
            Reduce::new(reduction, false),
            vec![input(), list(&[-1, 0])],
            1,
            0,
        );
        cases.add(&format!("{reduction:?} over all"), Reduce::new(reduction, false), vec![input()], 1, 0);
    }
    for logarithm in [false, true] {
        for axis in [0, 1, -1] {
            cases.add("Softmax", Softmax { axis, logarithm, joined: false }, vec![any(&[2, 3, 2])], 1, 0);
        }
        cases.add("Softmax of joined axes", Softmax { axis: 1, logarithm, joined: true }, vec![any(&[2, 2, 2])], 1, 0);
    }
}

fn movements(cases: &mut Cases) {
    cases.add("Reshape", Reshape { allow_zero: false }, vec![any(&[2, 3, 2]), list(&[0, -1])], 1, 0);
    cases.add("Flatten", Flatten { axis: 2 }, vec![any(&[2, 3, 2])], 1, 0);
    cases.add("Squeeze", Squeeze, vec![any(&[2, 1, 2]), list(&[1])], 1, 0);
    cases.add("Unsqueeze", Unsqueeze, vec![any(&[2, 2]), list(&[0, -1])], 1, 0);
    cases.add("Transpose", Transpose { order: vec![2, 0, 1] }, vec![any(&[2, 3, 2])], 1, 0);
    cases.add("Concat", Concat { axis: -1 }, vec![any(&[2, 3]), any(&[2, 1]), any(&[2, 2])], 1, 0);
    cases.add("Split", Split { axis: 1, counted: false }, vec![any(&[2, 5]), list(&[2, 3])], 2, 1);
    cases.add("Slice", Slice, vec![any(&[4, 5]), list(&[1, 0]), list(&[3, 4])], 1, 0);
    cases.add(
        "Slice, steps",
        Slice,
        vec![any(&[4, 5]), list(&[-1, 0]), list(&[-9, 5]), list(&[0, 1]), list(&[-2, 3])],
        1,
        0,
    );
    cases.add("Expand", Expand, vec![any(&[3, 1]), list(&[2, 1, 2])], 1, 0);
    cases.add("Tile", Tile, vec![any(&[2, 2]), list(&[2, 3])], 1, 0);
    cases.add("DepthToSpace", DepthToSpace { block: 2, channel_first: false }, vec![any(&[1, 8, 1, 2])], 1, 0);
    cases.add("DepthToSpace", DepthToSpace { block: 2, channel_first: true }, vec![any(&[1, 8, 1, 2])], 1, 0);
    cases.add("SpaceToDepth", SpaceToDepth { block: 2 }, vec![any(&[1, 2, 2, 4])], 1, 0);
    for mode in [PadMode::Constant, PadMode::Edge, PadMode::Reflect, PadMode::Wrap] {
        cases.add(&format!("Pad {mode:?}"), Pad { mode }, vec![any(&[3, 4]), list(&[2, 1, 0, 3])], 1, 0);
        cases.add(
            &format!("Pad {mode:?}, cut"),
            Pad { mode },
            vec![any(&[3, 4]), list(&[1, -1]), Value::Absent, list(&[1])],
            1,
            0,
        );
    }
}

fn indices(cases: &mut Cases) {
    cases.add("Gather", Gather { axis: 1 }, vec![any(&[2, 3, 2]), list(&[2, 0, 0])], 1, 0);
    let indices = Tensor::list(&[0, -1, 1, 0]).reshaped(&[2, 2]).unwrap();
    cases.add("GatherElements", GatherElements { axis: 0 }, vec![any(&[3, 2]), Value::Constant(indices.clone())], 1, 0);
    cases.add("GatherND", GatherNd { batch_axes: 0 }, vec![any(&[2, 2, 3]), Value::Constant(indices)], 1, 0);
    let batched = Tensor::list(&[1, 0]).reshaped(&[2, 1]).unwrap();
    cases.add("GatherND, batched", GatherNd { batch_axes: 1 }, vec![any(&[2, 2, 3]), Value::Constant(batched)], 1, 0);
}

fn resampling(cases: &mut Cases) {
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
            cases.add(&name, resize.clone(), vec![any(&[1, 1, 3, 4]), Value::Absent, scales()], 1, 0);
            cases.add(&name, resize, vec![any(&[1, 1, 5, 4]), Value::Absent, Value::Absent, list(&[1, 1, 3, 2])], 1, 0);
        }
    }
    let antialiased = Resize { antialias: true, ..Resize::new(ResizeMode::Linear) };
    cases.add(
        "Resize, antialiased",
        antialiased,
        vec![any(&[1, 1, 6, 5]), Value::Absent, Value::Absent, list(&[1, 1, 3, 2])],
        1,
        0,
    );
    for mode in [ResizeMode::Nearest, ResizeMode::Linear, ResizeMode::Cubic] {
        let scales = floats(&[5], &[1.0, 1.0, 2.0, 1.5, 2.0]);
        let volume = vec![any(&[1, 1, 2, 2, 3]), Value::Absent, scales];
        cases.add(&format!("Resize 3-D {mode:?}"), Resize::new(mode), volume, 1, 0);
    }
    let aligned = Resize { coordinates: Coordinates::AlignCorners, ..Resize::new(ResizeMode::Linear) };
    let smaller = vec![any(&[1, 1, 3, 4, 5]), Value::Absent, Value::Absent, list(&[1, 1, 2, 3, 2])];
    cases.add("Resize 3-D, smaller", aligned, smaller, 1, 0);
}

fn scatter_and_selection(cases: &mut Cases) {
    use ScatterReduction::{Add, Max, Min, Mul, Replace};
    let twice = || Value::Constant(Tensor::list(&[0, 2, 0, 1, 2, 0]).reshaped(&[3, 2]).unwrap());
    let once = || Value::Constant(Tensor::list(&[0, 2, 3, 1]).reshaped(&[2, 2]).unwrap());
    let tuples = |values: &[i64], shape: &[usize]| Value::Constant(Tensor::list(values).reshaped(shape).unwrap());
    let between = |shape| Value::Float(shape, Range::Between);
    cases.add(
        "ScatterElements",
        ScatterElements { axis: 0, reduction: Replace },
        vec![any(&[4, 2]), once(), between(&[2, 2])],
        1,
        0,
    );
    cases.add(
        "ScatterND",
        ScatterNd { reduction: Replace },
        vec![any(&[3, 2]), tuples(&[2, 0], &[2, 1]), between(&[2, 2])],
        1,
        0,
    );
    for reduction in [Add, Mul] {
        cases.add(
            &format!("{reduction:?}"),
            ScatterElements { axis: 0, reduction },
            vec![any(&[4, 2]), twice(), between(&[3, 2])],
            1,
            0,
        );
        cases.add(
            &format!("{reduction:?}"),
            ScatterNd { reduction },
            vec![any(&[3]), tuples(&[1, 1, 0], &[3, 1]), between(&[3])],
            1,
            0,
        );
    }
    for reduction in [Max, Min] {
        cases.add(
            &format!("{reduction:?}"),
            ScatterElements { axis: 0, reduction },
            vec![any(&[4, 2]), once(), between(&[2, 2])],
            1,
            0,
        );
    }
    cases.add("TopK", TopK { axis: 1, greatest: true }, vec![any(&[2, 5]), list(&[3])], 2, 0);
    cases.add("TopK, least", TopK { axis: 0, greatest: false }, vec![any(&[4, 2]), list(&[2])], 2, 0);
    cases.add("Trilu", Trilu { upper: true }, vec![any(&[2, 3, 3]), list(&[1])], 1, 0);
    cases.add("Trilu, lower", Trilu { upper: false }, vec![any(&[3, 4])], 1, 0);
    cases.add("OneHot", OneHot { axis: 0 }, vec![list(&[1, 0, 5]), list(&[3]), any(&[2])], 1, 0);
    cases.add(
        "ReverseSequence",
        ReverseSequence { batch_axis: 1, time_axis: 0 },
        vec![any(&[4, 2]), list(&[3, 2])],
        1,
        0,
    );
    let kept = Tensor::new(&[3], ElementType::Bool, Data::Bool(vec![true, false, true])).unwrap();
    cases.add("Compress", Compress { axis: Some(1) }, vec![any(&[2, 3]), Value::Constant(kept)], 1, 0);
    for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
        cases.add("CumSum", CumulativeSum { exclusive, reverse }, vec![any(&[2, 4]), list(&[1])], 1, 0);
    }
}

fn sums_of_products(cases: &mut Cases) {
    let einsum = |equation: &str| Einsum { equation: equation.into() };
    cases.add("matrices", einsum("bij,bjk->bik"), vec![any(&[2, 2, 3]), any(&[2, 3, 2])], 1, 0);
    cases.add("diagonal", einsum("bii->bi"), vec![any(&[2, 3, 3])], 1, 0);
    cases.add("sum", einsum("ij->i"), vec![any(&[2, 3])], 1, 0);
    cases.add("implicit", einsum("ij,jk"), vec![any(&[2, 3]), any(&[3, 2])], 1, 0);
    cases.add("outer", einsum("i,j->ji"), vec![any(&[2]), any(&[3])], 1, 0);
    cases.add("ellipsis", einsum("...ij,...j->...i"), vec![any(&[2, 2, 3]), any(&[1, 3])], 1, 0);
    cases.add("three", einsum("ij,jk,kl->il"), vec![any(&[2, 2]), any(&[2, 3]), any(&[3, 2])], 1, 0);
    cases.add("axis of one operand", einsum("ijk,jl->il"), vec![any(&[2, 2, 3]), any(&[2, 2])], 1, 0);
}

fn recurrent_layers(cases: &mut Cases) {
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
    cases.add(
        "RNN",
        layer(Cell::Plain, Direction::Forward),
        vec![x(), unit(&[1, 2, 2]), unit(&[1, 2, 2]), unit(&[1, 4])],
        2,
        0,
    );
    cases.add(
        "RNN, last state",
        layer(Cell::Plain, Direction::Reverse),
        vec![x(), unit(&[1, 2, 2]), unit(&[1, 2, 2])],
        2,
        1,
    );
    for reset_after in [false, true] {
        let gru = layer(Cell::Gru { reset_after }, Direction::Forward);
        let inputs = vec![x(), unit(&[1, 6, 2]), unit(&[1, 6, 2]), unit(&[1, 12]), Value::Absent, unit(&[1, 2, 2])];
        cases.add("GRU", gru, inputs, 2, 0);
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
        cases.add("LSTM", lstm, inputs, 3, 0);
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
    cases.add("LSTM, both directions and peepholes", lstm.clone(), inputs(), 3, 0);
    cases.add("LSTM, last cell", lstm, inputs(), 3, 2);
    let batch_first = Recurrent { batch_first: true, ..layer(Cell::Gru { reset_after: true }, Direction::Forward) };
    cases.add("GRU, batch first", batch_first, vec![unit(&[2, 3, 2]), unit(&[1, 6, 2]), unit(&[1, 6, 2])], 2, 0);
}

fn samples_between_elements(cases: &mut Cases) {
    let deformed = DeformableConvolution { groups: 1, offset_groups: 1, pads: vec![1, 0, 1, 0], ..Default::default() };
    // Offsets in steps of 0.1 shifted by 0.05 never meet an element, where the derivative jumps.
    let offsets = Value::Float(&[1, 8, 4, 2], Range::Unit);
    let inputs =
        vec![any(&[1, 2, 3, 3]), any(&[2, 2, 2, 2]), offsets, any(&[2]), Value::Float(&[1, 4, 4, 2], Range::Positive)];
    cases.add("DeformConv", deformed, inputs, 1, 0);
    let regions = || floats(&[2, 4], &[0.3, 0.2, 3.1, 2.9, 1.0, 0.5, 2.0, 3.6]);
    for greatest in [false, true] {
        for samples in [0, 2] {
            let align = RegionAlign { size: (2, 2), samples, scale: 1.0, greatest, half_pixel: true };
            cases.add("RoiAlign", align, vec![positive(&[2, 2, 4, 4]), regions(), list(&[0, 1])], 1, 0);
        }
    }
}

/// Step functions: the gradient is 0.
fn steps(cases: &mut Cases) {
    for function in [Unary::Ceil, Unary::Floor, Unary::Round, Unary::Sign] {
        cases.add(&format!("{function:?}"), function, vec![any(&[3, 4])], 1, 0);
    }
}

/// Where the gradient ends.
fn ends(cases: &mut Cases) {
    use Comparison::{And, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, Or, Xor};
    let truth = || Value::Constant(Tensor::new(&[2], ElementType::Bool, Data::Bool(vec![true, false])).unwrap());
    for comparison in [Equal, Greater, GreaterOrEqual, Less, LessOrEqual] {
        cases.add(&format!("{comparison:?}"), comparison, vec![any(&[2, 3]), any(&[3])], 1, 0);
    }
    for logic in [And, Or, Xor] {
        cases.add(&format!("{logic:?}"), logic, vec![truth(), truth()], 1, 0);
    }
    cases.add("Not", Unary::Not, vec![truth()], 1, 0);
    for function in [Unary::IsNaN, Unary::IsInf { negative: true, positive: true }] {
        cases.add(&format!("{function:?}"), function, vec![any(&[3])], 1, 0);
    }
    for least in [false, true] {
        let extreme = ArgExtreme { least, axis: 1, keep_axis: false, last: false };
        cases.add("ArgMax and ArgMin", extreme, vec![any(&[2, 3])], 1, 0);
    }
    cases.add("Mod", Arithmetic::Mod { truncated: true }, vec![any(&[2, 3]), positive(&[3])], 1, 0);
    cases.add("Cast to integers", Cast { to: ElementType::I64 }, vec![any(&[3])], 1, 0);
    cases.add("NonZero", NonZero, vec![any(&[3])], 1, 0);
    cases.add("Shape", Shape { start: 0, end: None }, vec![any(&[2, 3])], 1, 0);
    cases.add("Size", Size, vec![any(&[2, 3])], 1, 0);
    cases.add("ConstantOfShape", ConstantOfShape { value: Tensor::scalar(2.0) }, vec![list(&[2])], 1, 0);
    let scalar = |value| Value::Constant(integers(ElementType::I64, &[], &[value]));
    cases.add("Range", operators::Range, vec![scalar(0), scalar(3), scalar(1)], 1, 0);
}

/// Straight-through gradients, all inside the range of the integers.
fn quantisation(cases: &mut Cases) {
    let short = |values: &[i64], shape: &[usize]| Value::Constant(integers(ElementType::I16, shape, values));
    let scalar = |value: f32| Value::Constant(Tensor::scalar(value));
    let quantise = QuantizeLinear { axis: 1, block: 0, element: None };
    cases.add("QuantizeLinear", quantise, vec![any(&[2, 3]), scalar(SCALE), short(&[3], &[])], 1, 0);
    let scales = floats(&[2], &[SCALE, SCALE / 2.0]);
    cases.add("QuantizeLinear, per channel", quantise, vec![any(&[3, 2]), scales, short(&[3, -1], &[2])], 1, 0);
    let dequantise = DequantizeLinear { axis: 1, block: 0 };
    cases.add("DequantizeLinear", dequantise, vec![any(&[2, 3]), scalar(SCALE), scalar(1.5)], 1, 0);
    let a = || Value::Quantised(&[2, 3]);
    let b = || Value::Quantised(&[3, 2]);
    let zeros = || short(&[2], &[]);
    cases.add("MatMulInteger", QuantizedProduct::MatMulInteger, vec![a(), b(), zeros(), zeros()], 1, 0);
    let linear = vec![a(), scalar(SCALE), zeros(), b(), scalar(SCALE), zeros(), scalar(SCALE * SCALE), zeros()];
    cases.add("QLinearMatMul", QuantizedProduct::QLinearMatMul, linear, 1, 0);
    let image = || Value::Quantised(&[1, 1, 3, 3]);
    let kernels = || Value::Quantised(&[2, 1, 2, 2]);
    let convolution = || Convolution::new(2, 1, 1);
    let integer = QuantizedProduct::ConvInteger(convolution());
    cases.add("ConvInteger", integer, vec![image(), kernels(), zeros()], 1, 0);
    let linear = QuantizedProduct::QLinearConv(convolution());
    let scales = |value| vec![scalar(value), zeros()];
    let inputs = [vec![image()], scales(SCALE), vec![kernels()], scales(SCALE), scales(SCALE * SCALE)];
    cases.add("QLinearConv", linear, inputs.into_iter().flatten().collect(), 1, 0);
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

/// The scale comes from the extremes of the input and counts as fixed.
#[test]
fn dynamic_quantisation_is_straight_through() {
    let case = Case {
        name: "DynamicQuantizeLinear".into(),
        operator: DynamicQuantizeLinear.into(),
        inputs: vec![any(&[4])],
        outputs: 3,
        output: 0,
    };
    let (graph, _) = case.graph();
    let executor = weighted(graph, Tensor::floats(&[4], vec![1.0, 2.0, 3.0, 4.0]).unwrap());
    let input = Tensor::floats(&[4], vec![0.0, 0.3, 51.0, 17.2]).unwrap();
    let (_, gradients) = executor.forward_with_gradients(&[input]).unwrap();
    assert_eq!(gradients[0].as_ref().unwrap().to_f32().as_ref(), [5.0, 10.0, 15.0, 20.0]);
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
