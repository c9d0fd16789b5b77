//! Sums, products, powers, extremes, with broadcasting; and limits.

use super::{Arguments, Behaviour, Derivative, Fact, Facts, Source, Target, output_shape};
use crate::tensor::{broadcast, broadcast_strides, positions};
use crate::value::{DeviceTensor, Value};
use crate::{ElementType, OperatorError, Tensor};

/// A function of two or more values, element by element, by its ONNX name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a · b`.
    Mul,
    /// `a / b`; integers are cut towards zero.
    Div,
    /// `aᵇ`, in the element type of `a`.
    Pow,
    /// Remainder: with the sign of the divisor, or with that of the dividend (`truncated`), which floats need.
    Mod {
        /// `fmod` in ONNX.
        truncated: bool,
    },
    /// Sum of all inputs.
    Sum,
    /// Mean of all inputs.
    Mean,
    /// Greatest of all inputs.
    Max,
    /// Least of all inputs.
    Min,
}

impl Behaviour for Arithmetic {
    fn name(&self) -> &'static str {
        match self {
            Self::Add => "Add",
            Self::Sub => "Sub",
            Self::Mul => "Mul",
            Self::Div => "Div",
            Self::Pow => "Pow",
            Self::Mod { .. } => "Mod",
            Self::Sum => "Sum",
            Self::Mean => "Mean",
            Self::Max => "Max",
            Self::Min => "Min",
        }
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        Ok(Some(match source.operator {
            "Add" => Self::Add,
            "Sub" => Self::Sub,
            "Mul" => Self::Mul,
            "Div" => Self::Div,
            "Pow" => Self::Pow,
            "Mod" => Self::Mod { truncated: source.flag("fmod", false)? },
            "Sum" => Self::Sum,
            "Mean" => Self::Mean,
            "Max" => Self::Max,
            "Min" => Self::Min,
            _ => return Ok(None),
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        if let Self::Mod { truncated } = *self {
            target.flag("fmod", truncated);
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let element = inputs.element(0)?;
        if element == ElementType::Bool {
            return Err(OperatorError::mismatch("element type of the inputs", "numbers", element));
        }
        let wanted = if self.is_variadic() { inputs.inputs.len().max(1) } else { 2 };
        if inputs.inputs.len() != wanted {
            return Err(OperatorError::mismatch("number of inputs", wanted, inputs.inputs.len()));
        }
        for position in 1..wanted {
            let other = inputs.element(position)?;
            if other != element && *self != Self::Pow {
                return Err(OperatorError::mismatch("element types of the inputs", format!("all {element}"), other));
            }
        }
        Ok(vec![Fact::new(element, broadcast(&inputs.shapes()?)?)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let element = arguments.get(0)?.element();
        let shape = output_shape(outputs, 0)?;
        if !element.is_float() {
            return Ok(vec![Value::host(self.on_host(arguments, element, shape)?)]);
        }
        let inputs: Vec<DeviceTensor> =
            (0..arguments.values.len()).map(|position| arguments.tensor(position)).collect::<Result<_, _>>()?;
        let folded = |function: &dyn Fn(&DeviceTensor, &DeviceTensor) -> DeviceTensor| {
            inputs[1..].iter().fold(inputs[0].clone(), |left, right| function(&left, right))
        };
        let result = match self {
            Self::Add | Self::Sum => folded(&DeviceTensor::add),
            Self::Sub => folded(&DeviceTensor::sub),
            Self::Mul => folded(&DeviceTensor::mul),
            Self::Div => folded(&DeviceTensor::div),
            Self::Pow => power(&inputs[0], &inputs[1])?,
            Self::Mod { .. } => {
                let divisor = inputs[1].clone().expanded(shape);
                let dividend = inputs[0].clone().expanded(shape);
                let (left, right) = (dividend.to_floats()?, divisor.to_floats()?);
                let values = left.iter().zip(&right).map(|(left, right)| left % right).collect();
                DeviceTensor::new(values, shape, arguments.device)
            }
            Self::Mean => folded(&DeviceTensor::add).mul_scalar(1.0 / inputs.len() as f32),
            Self::Max => folded(&|left, right| {
                let (left, right) = common(left, right);
                left.replaced(&left.below(&right), &right)
            }),
            Self::Min => folded(&|left, right| {
                let (left, right) = common(left, right);
                left.replaced(&right.below(&left), &right)
            }),
        };
        Ok(vec![Value::Device(result.expanded(shape), element)])
    }

    fn has_weight_at(&self, _position: usize, constant: &Tensor) -> bool {
        matches!(self, Self::Add | Self::Mul) && constant.len() > 1
    }

    fn derivative(&self) -> Derivative {
        if matches!(self, Self::Mod { .. }) { Derivative::None } else { Derivative::Exact }
    }
}

impl Arithmetic {
    fn is_variadic(self) -> bool {
        matches!(self, Self::Sum | Self::Mean | Self::Max | Self::Min)
    }

    fn on_host(
        self,
        arguments: &Arguments<'_>,
        element: ElementType,
        shape: &[usize],
    ) -> Result<Tensor, OperatorError> {
        let first = arguments.host(0)?;
        let mut result = first.pick(shape, spread(first.shape(), shape).into_iter()).to_i64().into_owned();
        for position in 1..arguments.values.len() {
            let other = arguments.host(position)?;
            let other = other.pick(shape, spread(other.shape(), shape).into_iter());
            if self == Self::Pow && other.element().is_float() {
                for (value, exponent) in result.iter_mut().zip(other.to_f64().iter()) {
                    *value = (*value as f64).powf(*exponent) as i64;
                }
                continue;
            }
            for (value, &right) in result.iter_mut().zip(other.to_i64().iter()) {
                *value = self.on_integers(*value, right)?;
            }
        }
        if self == Self::Mean {
            let count = arguments.values.len() as i64;
            for value in &mut result {
                *value /= count;
            }
        }
        Tensor::integers(shape, element, result)
    }

    fn on_integers(self, left: i64, right: i64) -> Result<i64, OperatorError> {
        let by_zero = || OperatorError::mismatch("an integer divisor", "not 0", 0);
        Ok(match self {
            Self::Add | Self::Sum | Self::Mean => left.wrapping_add(right),
            Self::Sub => left.wrapping_sub(right),
            Self::Mul => left.wrapping_mul(right),
            Self::Div => left.checked_div(right).ok_or_else(by_zero)?,
            Self::Mod { truncated: true } => left.checked_rem(right).ok_or_else(by_zero)?,
            Self::Mod { truncated: false } => {
                let rest = left.checked_rem(right).ok_or_else(by_zero)?;
                if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest }
            }
            Self::Pow => match u32::try_from(right) {
                Ok(exponent) => left.wrapping_pow(exponent),
                Err(_) => (left as f64).powf(right as f64) as i64,
            },
            Self::Max => left.max(right),
            Self::Min => left.min(right),
        })
    }
}

fn spread(from: &[usize], to: &[usize]) -> Vec<usize> {
    positions(to, &broadcast_strides(from, to), 0)
}

/// Both tensors in the shape to which they broadcast; shape inference has checked that there is one.
fn common(left: &DeviceTensor, right: &DeviceTensor) -> (DeviceTensor, DeviceTensor) {
    let shape = broadcast(&[&left.shape(), &right.shape()]).unwrap_or_else(|_| left.shape());
    (left.clone().expanded(&shape), right.clone().expanded(&shape))
}

/// `base` to the power `exponent`. One exponent for all is applied as a number, so that no logarithm of a negative base
/// enters the gradient.
fn power(base: &DeviceTensor, exponent: &DeviceTensor) -> Result<DeviceTensor, OperatorError> {
    if exponent.len() == 1 && !exponent.is_tracked() {
        let exponent = exponent.to_floats()?[0];
        return Ok(if exponent == 2.0 { base.mul(base) } else { base.clone().pow_scalar(exponent) });
    }
    Ok(base.pow(exponent))
}

/// Limits every element to `[min, max]`, the second and third input; either may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clip;

impl Behaviour for Clip {
    fn name(&self) -> &'static str {
        "Clip"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Clip" {
            return Ok(None);
        }
        if source.opset < 11 {
            for (position, name, default) in [(1, "min", f32::MIN), (2, "max", f32::MAX)] {
                let limit = source.float_or(name, default)?;
                if limit != default {
                    source.new_inputs.push((position, Tensor::scalar(limit)));
                }
            }
        }
        Ok(Some(Self))
    }

    fn write(&self, _target: &mut Target<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        for position in [1, 2] {
            if let Some(limit) = inputs.optional(position) {
                let shape = limit.shape.as_deref().unwrap_or_default();
                if shape.iter().product::<usize>() != 1 {
                    return Err(OperatorError::mismatch("shape of a limit", "a scalar", format!("{shape:?}")));
                }
            }
        }
        Ok(vec![Fact::new(inputs.element(0)?, inputs.shape(0)?.to_vec())])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        if let Value::Host(tensor) = value {
            let limit = |position| arguments.optional(position).map(|_| arguments.integers(position)).transpose();
            let least = limit(1)?.map_or(i64::MIN, |values| values[0]);
            let greatest = limit(2)?.map_or(i64::MAX, |values| values[0]);
            // As ONNX has it, the upper limit wins where the limits cross.
            let values = tensor.to_i64().iter().map(|&value| value.max(least).min(greatest)).collect();
            return Ok(vec![Value::host(Tensor::integers(tensor.shape(), tensor.element(), values)?)]);
        }
        let limit = |position| arguments.optional_tensor(position).map(|limit| limit.to_floats()).transpose();
        let least = limit(1)?.map_or(f32::MIN, |values| values[0]);
        let greatest = limit(2)?.map_or(f32::MAX, |values| values[0]);
        let x = value.to_device(arguments.device);
        let y = if least <= greatest { x.clamped(least, greatest) } else { x.mul_scalar(0.0).add_scalar(greatest) };
        Ok(vec![Value::Device(y, value.element())])
    }
}
