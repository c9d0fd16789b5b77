//! Operators: one file a family, one struct or enum variant an ONNX operator.
//!
//! Each family says how its attributes are read from and written to ONNX, which shapes it takes and makes, and how it is
//! computed. Shape inference checks everything that the computation relies on, so a graph that passed it cannot fail
//! inside a kernel.
//!
//! # Where a function has no derivative
//!
//! - `Relu`, `LeakyRelu`, `PRelu`, `ThresholdedRelu`, `Abs` at their kink: the derivative from below for leaky slopes, 0 for
//!   `Relu`, `Abs` and `ThresholdedRelu`.
//! - `Clip`, `HardSigmoid`, `HardSwish`: at a bound the derivative of the inside.
//! - `Max`, `Min`, `MaxPool`, `ReduceMax`, `ReduceMin`: everything to the first of equal values.
//! - `Floor`, `Ceil`, `Round`, `Sign`, comparisons, casts to integers, `ArgMax`: 0 everywhere, so the gradient ends there.
//! - `QuantizeLinear`, `DynamicQuantizeLinear`: straight-through, 1 inside the range and 0 outside. This is an estimate.

mod activation;
mod arithmetic;
mod convolution;
mod einsum;
mod indexing;
mod linear;
mod logic;
mod normalization;
mod padding;
mod pooling;
mod quantization;
mod recurrent;
mod reduce;
mod resize;
mod sampling;
mod scatter;
mod selection;
mod shape;
mod softmax;
mod unary;
pub(crate) mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use nocebo_core::Seed;

pub use activation::Activation;
pub use arithmetic::{Arithmetic, Clip};
pub use convolution::{AutoPad, Convolution, TransposedConvolution};
pub use einsum::Einsum;
pub use indexing::{Gather, GatherElements, GatherNd, NonZero};
pub use linear::{Gemm, MatMul};
pub use logic::{Comparison, Where};
pub use normalization::{
    BatchNormalization, GroupNormalization, InstanceNormalization, LayerNormalization, LocalResponseNormalization,
    MeanVarianceNormalization,
};
pub use padding::{Pad, PadMode};
pub use pooling::{GlobalPool, Pool, PoolKind};
pub use quantization::{DequantizeLinear, DynamicQuantizeLinear, QuantizeLinear, QuantizedProduct};
pub use recurrent::{Cell, Direction, Recurrent};
pub use reduce::{ArgExtreme, Reduce, Reduction};
pub use resize::{AspectRatio, Coordinates, NearestRule, Resize, ResizeMode};
pub use sampling::{DeformableConvolution, RegionAlign};
pub use scatter::{ScatterElements, ScatterNd, ScatterReduction};
pub use selection::{Compress, CumulativeSum, OneHot, ReverseSequence, TopK, Trilu};
pub use shape::{
    Cast, Concat, ConstantOfShape, DepthToSpace, Dropout, Expand, Flatten, Identity, Range, Reshape, Shape, Size,
    Slice, SpaceToDepth, Split, Squeeze, Tile, Transpose, Unsqueeze,
};
pub use softmax::Softmax;
pub use unary::Unary;
pub use window::Window;

use crate::value::{DeviceTensor, Value};
use crate::{Device, ElementType, OperatorError, Tensor};

/// An attribute of an ONNX node.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// One integer.
    Integer(i64),
    /// One float.
    Float(f32),
    /// Text.
    Text(String),
    /// A list of integers.
    Integers(Vec<i64>),
    /// A list of floats.
    Floats(Vec<f32>),
    /// A list of texts.
    Texts(Vec<String>),
    /// A tensor.
    Tensor(Tensor),
}

impl std::fmt::Display for Attribute {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => write!(formatter, "{value}"),
            Self::Float(value) => write!(formatter, "{value}"),
            Self::Text(value) => write!(formatter, "{value:?}"),
            Self::Integers(values) => write!(formatter, "{values:?}"),
            Self::Floats(values) => write!(formatter, "{values:?}"),
            Self::Texts(values) => write!(formatter, "{values:?}"),
            Self::Tensor(tensor) => write!(formatter, "{} {:?}", tensor.element(), tensor.shape()),
        }
    }
}

/// A node as it stands in an ONNX file, while its operator is read. Attributes are taken out; what is left over at the
/// end is unknown to nocebo and refused.
pub(crate) struct Source<'a> {
    pub(crate) operator: &'a str,
    pub(crate) opset: i64,
    pub(crate) attributes: BTreeMap<String, Attribute>,
    /// Inputs that older opsets gave as attributes: position and value.
    pub(crate) new_inputs: Vec<(usize, Tensor)>,
    /// Inputs that older opsets had at another position: from where, to where.
    pub(crate) moved_inputs: Vec<(usize, usize)>,
}

impl Source<'_> {
    fn wrong(name: &str, must_be: &str) -> OperatorError {
        OperatorError::attribute(name, must_be, "another type")
    }

    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i64>, OperatorError> {
        match self.attributes.remove(name) {
            None => Ok(None),
            Some(Attribute::Integer(value)) => Ok(Some(value)),
            Some(_) => Err(Self::wrong(name, "an integer")),
        }
    }

    pub(crate) fn integer_or(&mut self, name: &str, default: i64) -> Result<i64, OperatorError> {
        Ok(self.integer(name)?.unwrap_or(default))
    }

    pub(crate) fn flag(&mut self, name: &str, default: bool) -> Result<bool, OperatorError> {
        Ok(self.integer(name)?.map_or(default, |value| value != 0))
    }

    /// A count that must be at least 0.
    pub(crate) fn count_or(&mut self, name: &str, default: usize) -> Result<usize, OperatorError> {
        match self.integer(name)? {
            None => Ok(default),
            Some(value) => usize::try_from(value).map_err(|_| OperatorError::attribute(name, "at least 0", value)),
        }
    }

    pub(crate) fn float_or(&mut self, name: &str, default: f32) -> Result<f32, OperatorError> {
        match self.attributes.remove(name) {
            None => Ok(default),
            Some(Attribute::Float(value)) => Ok(value),
            Some(_) => Err(Self::wrong(name, "a float")),
        }
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, OperatorError> {
        match self.attributes.remove(name) {
            None => Ok(None),
            Some(Attribute::Text(value)) => Ok(Some(value)),
            Some(_) => Err(Self::wrong(name, "text")),
        }
    }

    pub(crate) fn text_or(&mut self, name: &str, default: &str) -> Result<String, OperatorError> {
        Ok(self.text(name)?.unwrap_or_else(|| default.into()))
    }

    pub(crate) fn integers(&mut self, name: &str) -> Result<Option<Vec<i64>>, OperatorError> {
        match self.attributes.remove(name) {
            None => Ok(None),
            Some(Attribute::Integers(values)) => Ok(Some(values)),
            Some(_) => Err(Self::wrong(name, "a list of integers")),
        }
    }

    /// A list of counts, each at least `least`; empty where the attribute is absent.
    pub(crate) fn counts(&mut self, name: &str, least: usize) -> Result<Vec<usize>, OperatorError> {
        let values = self.integers(name)?.unwrap_or_default();
        values
            .iter()
            .map(|&value| usize::try_from(value).ok().filter(|&count| count >= least && count < 1 << 31))
            .collect::<Option<_>>()
            .ok_or_else(|| {
                OperatorError::attribute(name, format!("at least {least} and below 2^31"), format!("{values:?}"))
            })
    }

    pub(crate) fn floats(&mut self, name: &str) -> Result<Option<Vec<f32>>, OperatorError> {
        match self.attributes.remove(name) {
            None => Ok(None),
            Some(Attribute::Floats(values)) => Ok(Some(values)),
            Some(_) => Err(Self::wrong(name, "a list of floats")),
        }
    }

    pub(crate) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, OperatorError> {
        match self.attributes.remove(name) {
            None => Ok(None),
            Some(Attribute::Texts(values)) => Ok(Some(values)),
            Some(_) => Err(Self::wrong(name, "a list of texts")),
        }
    }

    pub(crate) fn tensor(&mut self, name: &str) -> Result<Option<Tensor>, OperatorError> {
        match self.attributes.remove(name) {
            None => Ok(None),
            Some(Attribute::Tensor(value)) => Ok(Some(value)),
            Some(_) => Err(Self::wrong(name, "a tensor")),
        }
    }

    /// Turns a list attribute of an older opset into the input that newer ones have in its place.
    pub(crate) fn integers_to_input(&mut self, name: &str, position: usize) -> Result<(), OperatorError> {
        if let Some(values) = self.integers(name)? {
            self.new_inputs.push((position, Tensor::list(&values)));
        }
        Ok(())
    }

    /// Drops attributes of older opsets that say nothing about the result.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.attributes.remove(*name);
        }
    }
}

/// A node as it is written to an ONNX file.
pub(crate) struct Target<'a> {
    pub(crate) opset: i64,
    pub(crate) attributes: BTreeMap<String, Attribute>,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: usize,
    pub(crate) constants: &'a BTreeMap<String, Arc<Tensor>>,
}

impl Target<'_> {
    pub(crate) fn integer(&mut self, name: &str, value: i64) {
        self.attributes.insert(name.into(), Attribute::Integer(value));
    }

    pub(crate) fn flag(&mut self, name: &str, value: bool) {
        self.integer(name, i64::from(value));
    }

    pub(crate) fn float(&mut self, name: &str, value: f32) {
        self.attributes.insert(name.into(), Attribute::Float(value));
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.attributes.insert(name.into(), Attribute::Text(value.into()));
    }

    pub(crate) fn texts(&mut self, name: &str, values: Vec<String>) {
        self.attributes.insert(name.into(), Attribute::Texts(values));
    }

    /// A list of floats; left out where it is empty.
    pub(crate) fn floats(&mut self, name: &str, values: Vec<f32>) {
        if !values.is_empty() {
            self.attributes.insert(name.into(), Attribute::Floats(values));
        }
    }

    pub(crate) fn integers(&mut self, name: &str, values: &[i64]) {
        self.attributes.insert(name.into(), Attribute::Integers(values.to_vec()));
    }

    /// A list of counts; left out where it is empty.
    pub(crate) fn counts(&mut self, name: &str, values: &[usize]) {
        if !values.is_empty() {
            let values: Vec<i64> = values.iter().map(|&value| value as i64).collect();
            self.integers(name, &values);
        }
    }

    pub(crate) fn tensor(&mut self, name: &str, value: &Tensor) {
        self.attributes.insert(name.into(), Attribute::Tensor(value.clone()));
    }
}

/// What is known about a value before the graph runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Element type.
    pub element: ElementType,
    /// Shape; `None` where it depends on the input values.
    pub shape: Option<Vec<usize>>,
    /// The value itself, where it follows from shapes and constants alone.
    pub value: Option<Arc<Tensor>>,
}

impl Fact {
    /// A value of known shape.
    pub(crate) fn new(element: ElementType, shape: Vec<usize>) -> Self {
        Self { element, shape: Some(shape), value: None }
    }

    /// A value that is known.
    pub(crate) fn known(value: &Arc<Tensor>) -> Self {
        Self { element: value.element(), shape: Some(value.shape().to_vec()), value: Some(value.clone()) }
    }
}

/// Facts about the inputs of a node.
pub(crate) struct Facts<'a> {
    pub(crate) inputs: &'a [Option<Fact>],
    /// Number of outputs that the node names.
    pub(crate) outputs: usize,
}

impl Facts<'_> {
    pub(crate) fn optional(&self, position: usize) -> Option<&Fact> {
        self.inputs.get(position).and_then(Option::as_ref)
    }

    pub(crate) fn get(&self, position: usize) -> Result<&Fact, OperatorError> {
        self.optional(position).ok_or_else(|| OperatorError::mismatch(format!("input {position}"), "a value", "none"))
    }

    pub(crate) fn element(&self, position: usize) -> Result<ElementType, OperatorError> {
        Ok(self.get(position)?.element)
    }

    pub(crate) fn shape(&self, position: usize) -> Result<&[usize], OperatorError> {
        self.get(position)?
            .shape
            .as_deref()
            .ok_or_else(|| OperatorError::dynamic(format!("the shape of input {position}")))
    }

    /// The value of an input that must be known to tell the shape of the output.
    pub(crate) fn value(&self, position: usize) -> Result<&Arc<Tensor>, OperatorError> {
        self.get(position)?
            .value
            .as_ref()
            .ok_or_else(|| OperatorError::dynamic(format!("the value of input {position}")))
    }

    pub(crate) fn integers(&self, position: usize) -> Result<Vec<i64>, OperatorError> {
        whole_numbers(position, self.value(position)?)
    }

    pub(crate) fn optional_integers(&self, position: usize) -> Result<Option<Vec<i64>>, OperatorError> {
        if self.optional(position).is_none() { Ok(None) } else { self.integers(position).map(Some) }
    }

    /// All shapes of the inputs.
    pub(crate) fn shapes(&self) -> Result<Vec<&[usize]>, OperatorError> {
        (0..self.inputs.len()).map(|position| self.shape(position)).collect()
    }

    /// Refuses element types that the operator cannot bear.
    pub(crate) fn require_float(&self, position: usize) -> Result<(), OperatorError> {
        match self.element(position)? {
            element if element.is_float() => Ok(()),
            element => {
                Err(OperatorError::mismatch(format!("element type of input {position}"), "a float type", element))
            }
        }
    }
}

/// Values of the inputs of a node.
pub(crate) struct Arguments<'a> {
    pub(crate) values: &'a [Option<Value>],
    pub(crate) device: &'a Device,
    /// Seed of this node in this step where training is on: dropout draws from it.
    pub(crate) training: Option<Seed>,
}

impl Arguments<'_> {
    pub(crate) fn get(&self, position: usize) -> Result<&Value, OperatorError> {
        self.optional(position).ok_or_else(|| OperatorError::mismatch(format!("input {position}"), "a value", "none"))
    }

    pub(crate) fn optional(&self, position: usize) -> Option<&Value> {
        self.values.get(position).and_then(Option::as_ref)
    }

    pub(crate) fn tensor(&self, position: usize) -> Result<DeviceTensor, OperatorError> {
        Ok(self.get(position)?.to_device(self.device))
    }

    pub(crate) fn optional_tensor(&self, position: usize) -> Option<DeviceTensor> {
        self.optional(position).map(|value| value.to_device(self.device))
    }

    pub(crate) fn host(&self, position: usize) -> Result<Arc<Tensor>, OperatorError> {
        self.get(position)?.to_host()
    }

    pub(crate) fn integers(&self, position: usize) -> Result<Vec<i64>, OperatorError> {
        let tensor = self.host(position)?;
        whole_numbers(position, &tensor)
    }

    pub(crate) fn optional_integers(&self, position: usize) -> Result<Option<Vec<i64>>, OperatorError> {
        if self.optional(position).is_none() { Ok(None) } else { self.integers(position).map(Some) }
    }
}

/// The values of an input that holds counts, places or sides.
fn whole_numbers(position: usize, tensor: &Tensor) -> Result<Vec<i64>, OperatorError> {
    if tensor.element().is_float() {
        let what = format!("element type of input {position}");
        return Err(OperatorError::mismatch(what, "an integer type", tensor.element()));
    }
    Ok(tensor.to_i64().into_owned())
}

/// Shape of an output, which shape inference has found.
pub(crate) fn output_shape(outputs: &[Fact], position: usize) -> Result<&[usize], OperatorError> {
    outputs
        .get(position)
        .and_then(|fact| fact.shape.as_deref())
        .ok_or_else(|| OperatorError::dynamic("the shape of the output"))
}

/// An axis that may count from the end, made a position in `0..rank`.
pub(crate) fn axis_of(axis: i64, rank: usize) -> Result<usize, OperatorError> {
    let position = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(position)
        .ok()
        .filter(|&position| position < rank)
        .ok_or_else(|| OperatorError::attribute("axis", format!("in -{rank}..{rank}"), axis))
}

/// Axes that may count from the end, as distinct positions in `0..rank`, in the given order.
pub(crate) fn axes_of(axes: &[i64], rank: usize) -> Result<Vec<usize>, OperatorError> {
    let positions: Vec<usize> = axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<_, _>>()?;
    for (index, axis) in positions.iter().enumerate() {
        if positions[..index].contains(axis) {
            return Err(OperatorError::attribute("axes", "each axis once", format!("{axes:?}")));
        }
    }
    Ok(positions)
}

/// What the gradient through an operator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derivative {
    /// The derivative, with the rules of this module where a function has none.
    Exact,
    /// A stand-in for a derivative that is 0 almost everywhere: straight-through. What an attack finds with it is no bound.
    Estimated,
    /// 0 everywhere, as is true of a step function: an attack gets no direction from it.
    Zero,
    /// None: the outputs are integers, truth values or shapes, and the gradient ends there.
    None,
}

impl std::fmt::Display for Derivative {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Exact => "exact",
            Self::Estimated => "estimated",
            Self::Zero => "zero",
            Self::None => "none",
        })
    }
}

/// Whether some opset's operator of this ONNX name can be read (`Constant` nodes become constants of the graph).
pub fn is_known(operator: &str) -> bool {
    let at = |opset| {
        let attributes = BTreeMap::new();
        let mut source = Source { operator, opset, attributes, new_inputs: Vec::new(), moved_inputs: Vec::new() };
        // An attribute that is missing is no stranger.
        !matches!(Operator::read(&mut source), Ok(None))
    };
    operator == "Constant" || at(7) || at(crate::onnx::NEWEST_OPSET)
}

/// What every family of operators does.
pub(crate) trait Behaviour: Sized {
    /// Name in ONNX.
    fn name(&self) -> &'static str;

    /// The operator, if its name is of this family.
    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError>;

    /// Writes the attributes.
    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError>;

    /// Facts about the outputs; checks everything that `forward` relies on.
    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError>;

    /// Computes the outputs, whose shapes are in `outputs`.
    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError>;

    /// Whether a float constant at this input is a weight that training may change.
    fn has_weight_at(&self, _position: usize, _constant: &Tensor) -> bool {
        false
    }

    /// What the gradient through it is.
    fn derivative(&self) -> Derivative {
        Derivative::Exact
    }

    /// Least opset that has the operator in the form that `write` makes.
    fn least_opset(&self) -> i64 {
        1
    }

    /// Multiplications with additions, for networks whose cost is counted.
    fn multiplications(&self, _inputs: &Facts<'_>, _outputs: &[Fact]) -> u64 {
        0
    }
}

macro_rules! operators {
    ($($(#[$doc:meta])* $family:ident),* $(,)?) => {
        /// What a node computes. Names are those of ONNX wherever a variant is one operator.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Operator {
            $($(#[$doc])* $family($family),)*
        }

        $(impl From<$family> for Operator {
            fn from(operator: $family) -> Self {
                Self::$family(operator)
            }
        })*

        impl Operator {
            /// Name in ONNX.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$family(operator) => operator.name(),)* }
            }

            pub(crate) fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
                $(if let Some(operator) = $family::read(source)? {
                    return Ok(Some(Self::$family(operator)));
                })*
                Ok(None)
            }

            pub(crate) fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
                match self { $(Self::$family(operator) => operator.write(target),)* }
            }

            pub(crate) fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
                match self { $(Self::$family(operator) => operator.infer(inputs),)* }
            }

            pub(crate) fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
                match self { $(Self::$family(operator) => operator.forward(arguments, outputs),)* }
            }

            /// What the gradient through it is.
            pub fn derivative(&self) -> Derivative {
                match self { $(Self::$family(operator) => operator.derivative(),)* }
            }

            pub(crate) fn has_weight_at(&self, position: usize, constant: &Tensor) -> bool {
                match self { $(Self::$family(operator) => operator.has_weight_at(position, constant),)* }
            }

            /// Least opset in which it can be written.
            pub fn least_opset(&self) -> i64 {
                match self { $(Self::$family(operator) => operator.least_opset(),)* }
            }

            pub(crate) fn multiplications(&self, inputs: &Facts<'_>, outputs: &[Fact]) -> u64 {
                match self { $(Self::$family(operator) => operator.multiplications(inputs, outputs),)* }
            }
        }
    };
}

operators! {
    /// Functions of one value that layers end with.
    Activation,
    /// Position of the greatest or least value.
    ArgExtreme,
    /// Sums, products, powers, with broadcasting.
    Arithmetic,
    /// Normalisation by the statistics of training data or of the batch.
    BatchNormalization,
    /// Conversion to another element type.
    Cast,
    /// Limits to a range.
    Clip,
    /// Comparisons and logic.
    Comparison,
    /// Slices at which a condition is true.
    Compress,
    /// Joins along an axis.
    Concat,
    /// A tensor of one value.
    ConstantOfShape,
    /// Convolution with one to three axes of space.
    Convolution,
    /// Running sums.
    CumulativeSum,
    /// Moves channels into space.
    DepthToSpace,
    /// Convolution with moved taps.
    DeformableConvolution,
    /// From integers to the floats that they stand for.
    DequantizeLinear,
    /// Dropout: the identity unless training is on.
    Dropout,
    /// To integers by a scale from the data.
    DynamicQuantizeLinear,
    /// Sums of products over named axes.
    Einsum,
    /// Broadcasts to a shape.
    Expand,
    /// Flattens to a matrix.
    Flatten,
    /// Rows by index.
    Gather,
    /// Elements by index along an axis.
    GatherElements,
    /// Slices by index tuples.
    GatherNd,
    /// Product of matrices with a bias.
    Gemm,
    /// Pooling over all of space.
    GlobalPool,
    /// Normalisation over groups of channels.
    GroupNormalization,
    /// The value itself.
    Identity,
    /// Normalisation over each channel of each sample.
    InstanceNormalization,
    /// Normalisation over the last axes.
    LayerNormalization,
    /// Normalisation over neighbouring channels.
    LocalResponseNormalization,
    /// Product of matrices, batched.
    MatMul,
    /// Normalisation over any axes, without parameters.
    MeanVarianceNormalization,
    /// Index of every element that is not 0.
    NonZero,
    /// Ones at indices.
    OneHot,
    /// Borders around a tensor.
    Pad,
    /// Pooling over windows.
    Pool,
    /// Products of quantised operands.
    QuantizedProduct,
    /// From floats to the integers that stand for them.
    QuantizeLinear,
    /// Evenly spaced values.
    Range,
    /// Recurrent layers.
    Recurrent,
    /// Reductions over axes.
    Reduce,
    /// Regions resampled to one size.
    RegionAlign,
    /// Another shape for the same values.
    Reshape,
    /// Resampling in space.
    Resize,
    /// Sequences reversed.
    ReverseSequence,
    /// Elements put at places along an axis.
    ScatterElements,
    /// Slices put at places.
    ScatterNd,
    /// The shape of a value.
    Shape,
    /// The number of elements of a value.
    Size,
    /// Parts of a tensor.
    Slice,
    /// Softmax and its logarithm.
    Softmax,
    /// Moves space into channels.
    SpaceToDepth,
    /// Cuts along an axis.
    Split,
    /// Removes axes of length 1.
    Squeeze,
    /// Repeats along axes.
    Tile,
    /// The greatest or least few values.
    TopK,
    /// Another order of axes.
    Transpose,
    /// Transposed convolution.
    TransposedConvolution,
    /// A triangle of a matrix.
    Trilu,
    /// Functions of one value.
    Unary,
    /// Inserts axes of length 1.
    Unsqueeze,
    /// Choice by a mask.
    Where,
}
