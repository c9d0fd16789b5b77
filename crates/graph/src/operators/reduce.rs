//! Reductions over axes.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::{Arguments, Behaviour, Derivative, Fact, Facts, Source, Target, axes_of, axis_of, output_shape};
use crate::tensor::{Data, positions, strides};
use crate::value::{DeviceTensor, Value};
use crate::{ElementType, OperatorError, Tensor};

/// What a reduction computes, by the end of its ONNX name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name is the function")]
pub enum Reduction {
    L1,
    L2,
    LogSum,
    LogSumExp,
    Max,
    Mean,
    Min,
    Prod,
    Sum,
    SumSquare,
}

const NAMES: [(Reduction, &str); 10] = [
    (Reduction::L1, "ReduceL1"),
    (Reduction::L2, "ReduceL2"),
    (Reduction::LogSum, "ReduceLogSum"),
    (Reduction::LogSumExp, "ReduceLogSumExp"),
    (Reduction::Max, "ReduceMax"),
    (Reduction::Mean, "ReduceMean"),
    (Reduction::Min, "ReduceMin"),
    (Reduction::Prod, "ReduceProd"),
    (Reduction::Sum, "ReduceSum"),
    (Reduction::SumSquare, "ReduceSumSquare"),
];

/// A reduction over the axes in the second input, or over all of them where it is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// What is computed.
    pub reduction: Reduction,
    /// Whether the axes stay with length 1.
    pub keep_axes: bool,
    /// Whether no axes mean that nothing is reduced.
    pub none_means_none: bool,
}

impl Reduce {
    /// The given reduction; the axes stay where `keep_axes` is set.
    pub fn new(reduction: Reduction, keep_axes: bool) -> Self {
        Self { reduction, keep_axes, none_means_none: false }
    }

    fn axes(self, axes: Option<Vec<i64>>, rank: usize) -> Result<Vec<usize>, OperatorError> {
        match axes {
            Some(axes) if !axes.is_empty() => axes_of(&axes, rank),
            _ if self.none_means_none => Ok(Vec::new()),
            _ => Ok((0..rank).collect()),
        }
    }
}

/// The shape that is left when `axes` are reduced.
pub(crate) fn reduced(shape: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    (0..shape.len())
        .filter(|axis| keep || !axes.contains(axis))
        .map(|axis| if axes.contains(&axis) { 1 } else { shape[axis] })
        .collect()
}

impl Behaviour for Reduce {
    fn name(&self) -> &'static str {
        NAMES.iter().find(|(reduction, _)| *reduction == self.reduction).map_or("", |(_, name)| name)
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        let Some((reduction, _)) = NAMES.iter().find(|(_, name)| *name == source.operator) else { return Ok(None) };
        source.integers_to_input("axes", 1)?;
        Ok(Some(Self {
            reduction: *reduction,
            keep_axes: source.flag("keepdims", true)?,
            none_means_none: source.flag("noop_with_empty_axes", false)?,
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.flag("keepdims", self.keep_axes);
        let axes_are_an_input = target.opset >= if self.reduction == Reduction::Sum { 13 } else { 18 };
        if axes_are_an_input {
            target.flag("noop_with_empty_axes", self.none_means_none);
        } else if let Some(name) = target.inputs.get(1).filter(|name| !name.is_empty()).cloned() {
            let axes = target
                .constants
                .get(&name)
                .ok_or_else(|| OperatorError::unsupported("axes that are not constant in this opset"))?;
            let axes = axes.to_i64().into_owned();
            target.integers("axes", &axes);
            target.inputs.truncate(1);
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let element = inputs.element(0)?;
        let extreme = matches!(self.reduction, Reduction::Max | Reduction::Min);
        if element == ElementType::Bool && !extreme {
            return Err(OperatorError::mismatch("element type of the input", "numbers", element));
        }
        let shape = inputs.shape(0)?;
        let axes = self.axes(inputs.optional_integers(1)?, shape.len())?;
        if extreme && axes.iter().any(|&axis| shape[axis] == 0) {
            return Err(OperatorError::mismatch("shape of the input", "no empty axis", format!("{shape:?}")));
        }
        Ok(vec![Fact::new(element, reduced(shape, &axes, self.keep_axes))])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let shape = value.shape();
        let axes = self.axes(arguments.optional_integers(1)?, shape.len())?;
        let out = output_shape(outputs, 0)?;
        if let Value::Host(tensor) = value {
            return Ok(vec![Value::host(self.on_host(tensor, &axes, out)?)]);
        }
        let x = value.to_device(arguments.device);
        let result = if shape.contains(&0) {
            // Nothing to reduce: sums are 0, products 1, and logarithms those of 0.
            let empty = match self.reduction {
                Reduction::Prod => 1.0,
                Reduction::LogSum | Reduction::LogSumExp => f32::NEG_INFINITY,
                Reduction::Mean => f32::NAN,
                _ => 0.0,
            };
            DeviceTensor::full(empty, out, arguments.device)
        } else {
            self.on_device(x, &axes).reshaped(out)
        };
        Ok(vec![Value::Device(result, value.element())])
    }
}

impl Reduce {
    fn on_device(self, x: DeviceTensor, axes: &[usize]) -> DeviceTensor {
        match self.reduction {
            Reduction::L1 => x.abs().sum(axes),
            Reduction::L2 => x.mul(&x).sum(axes).sqrt(),
            Reduction::LogSum => x.sum(axes).map(Dispatch::float_log),
            Reduction::LogSumExp => {
                // The greatest value is taken out first, so that nothing overflows.
                let greatest = x.detached().max(axes);
                x.sub(&greatest).exp().sum(axes).map(Dispatch::float_log).add(&greatest)
            }
            Reduction::Max => x.max(axes),
            Reduction::Mean => x.mean(axes),
            Reduction::Min => x.min(axes),
            Reduction::Prod => x.product(axes),
            Reduction::Sum => x.sum(axes),
            Reduction::SumSquare => x.mul(&x).sum(axes),
        }
    }

    fn on_host(self, tensor: &Tensor, axes: &[usize], out: &[usize]) -> Result<Tensor, OperatorError> {
        let groups = groups(tensor.shape(), axes);
        let values = tensor.to_i64();
        let reduced = groups.into_iter().map(|group| {
            let values = || group.iter().map(|&position| values[position]);
            let real = |sum: f64| sum as i64;
            match self.reduction {
                Reduction::L1 => values().map(i64::wrapping_abs).fold(0, i64::wrapping_add),
                Reduction::L2 => real(values().map(|value| (value as f64).powi(2)).sum::<f64>().sqrt()),
                Reduction::LogSum => real(values().map(|value| value as f64).sum::<f64>().ln()),
                Reduction::LogSumExp => real(values().map(|value| (value as f64).exp()).sum::<f64>().ln()),
                Reduction::Max => values().max().unwrap_or(i64::MIN),
                Reduction::Min => values().min().unwrap_or(i64::MAX),
                Reduction::Mean => values().fold(0, i64::wrapping_add) / (group.len() as i64).max(1),
                Reduction::Prod => values().fold(1, i64::wrapping_mul),
                Reduction::Sum => values().fold(0, i64::wrapping_add),
                Reduction::SumSquare => values().map(|value| value.wrapping_mul(value)).fold(0, i64::wrapping_add),
            }
        });
        Ok(Tensor::new(out, ElementType::I64, Data::Integer(reduced.collect()))?.cast(tensor.element()))
    }
}

/// Flat positions of the elements that are reduced together, one list an output element, in row order.
fn groups(shape: &[usize], axes: &[usize]) -> Vec<Vec<usize>> {
    let steps = strides(shape);
    let side_and_step = |reduced: bool| -> (Vec<usize>, Vec<isize>) {
        (0..shape.len())
            .filter(|axis| axes.contains(axis) == reduced)
            .map(|axis| (shape[axis], steps[axis] as isize))
            .unzip()
    };
    let (kept, kept_steps) = side_and_step(false);
    let (inner, inner_steps) = side_and_step(true);
    positions(&kept, &kept_steps, 0).into_iter().map(|start| positions(&inner, &inner_steps, start)).collect()
}

/// Position of the greatest or least value along an axis (`ArgMax`, `ArgMin`). No gradient passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgExtreme {
    /// Whether the least value is meant.
    pub least: bool,
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// Whether the axis stays with length 1.
    pub keep_axis: bool,
    /// Whether the last of equal values is taken instead of the first.
    pub last: bool,
}

impl Behaviour for ArgExtreme {
    fn name(&self) -> &'static str {
        if self.least { "ArgMin" } else { "ArgMax" }
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        let least = match source.operator {
            "ArgMax" => false,
            "ArgMin" => true,
            _ => return Ok(None),
        };
        Ok(Some(Self {
            least,
            axis: source.integer_or("axis", 0)?,
            keep_axis: source.flag("keepdims", true)?,
            last: source.flag("select_last_index", false)?,
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        target.flag("keepdims", self.keep_axis);
        if self.last {
            target.flag("select_last_index", true);
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?;
        let axis = axis_of(self.axis, shape.len())?;
        if shape[axis] == 0 {
            return Err(OperatorError::mismatch("shape of the input", "no empty axis", format!("{shape:?}")));
        }
        Ok(vec![Fact::new(ElementType::I64, reduced(shape, &[axis], self.keep_axis))])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let tensor = arguments.host(0)?;
        let axis = axis_of(self.axis, tensor.shape().len())?;
        let values = tensor.to_f64();
        let best = |group: Vec<usize>| {
            let mut best = 0;
            for (index, &position) in group.iter().enumerate() {
                let (value, record) = (values[position], values[group[best]]);
                let better = if self.least { value < record } else { value > record };
                if better || (self.last && value == record) {
                    best = index;
                }
            }
            best as i64
        };
        let result = groups(tensor.shape(), &[axis]).into_iter().map(best).collect();
        Ok(vec![Value::host(Tensor::integers(output_shape(outputs, 0)?, ElementType::I64, result)?)])
    }

    fn derivative(&self) -> Derivative {
        Derivative::None
    }
}
