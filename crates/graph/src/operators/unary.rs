//! Functions of one value, element by element.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::{Arguments, Behaviour, Derivative, Fact, Facts, Source, Target};
use crate::value::{DeviceTensor, Value};
use crate::{ElementType, OperatorError, Tensor};

/// A function of one value, by its ONNX name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name is the function")]
pub enum Unary {
    Abs,
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Ceil,
    Cos,
    Cosh,
    Erf,
    Exp,
    Floor,
    IsNaN,
    IsInf { negative: bool, positive: bool },
    Log,
    Neg,
    Not,
    Reciprocal,
    Round,
    Sign,
    Sin,
    Sinh,
    Sqrt,
    Tan,
}

const NAMES: [(Unary, &str); 25] = [
    (Unary::Abs, "Abs"),
    (Unary::Acos, "Acos"),
    (Unary::Acosh, "Acosh"),
    (Unary::Asin, "Asin"),
    (Unary::Asinh, "Asinh"),
    (Unary::Atan, "Atan"),
    (Unary::Atanh, "Atanh"),
    (Unary::Ceil, "Ceil"),
    (Unary::Cos, "Cos"),
    (Unary::Cosh, "Cosh"),
    (Unary::Erf, "Erf"),
    (Unary::Exp, "Exp"),
    (Unary::Floor, "Floor"),
    (Unary::IsNaN, "IsNaN"),
    (Unary::IsInf { negative: true, positive: true }, "IsInf"),
    (Unary::Log, "Log"),
    (Unary::Neg, "Neg"),
    (Unary::Not, "Not"),
    (Unary::Reciprocal, "Reciprocal"),
    (Unary::Round, "Round"),
    (Unary::Sign, "Sign"),
    (Unary::Sin, "Sin"),
    (Unary::Sinh, "Sinh"),
    (Unary::Sqrt, "Sqrt"),
    (Unary::Tan, "Tan"),
];

impl Behaviour for Unary {
    fn name(&self) -> &'static str {
        let same = |function: &Unary| std::mem::discriminant(function) == std::mem::discriminant(self);
        NAMES.iter().find(|(function, _)| same(function)).map_or("", |(_, name)| name)
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        let found = NAMES.iter().find(|(_, name)| *name == source.operator).map(|(function, _)| *function);
        Ok(match found {
            Some(Self::IsInf { .. }) => Some(Self::IsInf {
                negative: source.flag("detect_negative", true)?,
                positive: source.flag("detect_positive", true)?,
            }),
            other => other,
        })
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        if let Self::IsInf { negative, positive } = *self {
            target.flag("detect_negative", negative);
            target.flag("detect_positive", positive);
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let element = inputs.element(0)?;
        let fits = match self {
            Self::Not => element == ElementType::Bool,
            Self::Abs | Self::Neg | Self::Sign => element != ElementType::Bool,
            _ => element.is_float(),
        };
        if !fits {
            return Err(OperatorError::mismatch("element type of the input", "one that the function takes", element));
        }
        let out = if matches!(self, Self::IsNaN | Self::IsInf { .. }) { ElementType::Bool } else { element };
        Ok(vec![Fact::new(out, inputs.shape(0)?.to_vec())])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        if let Value::Host(tensor) = value
            && !tensor.element().is_float()
        {
            return Ok(vec![Value::host(self.on_host(tensor)?)]);
        }
        let x = value.to_device(arguments.device);
        let test = |tensor: &DeviceTensor, function: &dyn Fn(f32) -> bool| -> Result<Value, OperatorError> {
            let values = tensor.to_floats()?.into_iter().map(function).collect();
            Ok(Value::host(Tensor::booleans(&tensor.shape(), values)?))
        };
        match *self {
            Self::IsNaN => return Ok(vec![test(&x, &|v| v.is_nan())?]),
            Self::IsInf { negative, positive } => {
                let infinite = |v: f32| v.is_infinite() && if v < 0.0 { negative } else { positive };
                return Ok(vec![test(&x, &infinite)?]);
            }
            _ => {}
        }
        Ok(vec![Value::Device(self.on_device(x), value.element())])
    }

    fn derivative(&self) -> Derivative {
        match self {
            Self::Ceil | Self::Floor | Self::Round | Self::Sign => Derivative::Zero,
            Self::Not | Self::IsNaN | Self::IsInf { .. } => Derivative::None,
            _ => Derivative::Exact,
        }
    }
}

impl Unary {
    fn on_device(self, x: DeviceTensor) -> DeviceTensor {
        match self {
            Self::Abs => x.abs(),
            Self::Acos => x.map(Dispatch::float_acos),
            Self::Acosh => x.map(Dispatch::float_acosh),
            Self::Asin => x.map(Dispatch::float_asin),
            Self::Asinh => x.map(Dispatch::float_asinh),
            Self::Atan => x.map(Dispatch::float_atan),
            Self::Atanh => x.map(Dispatch::float_atanh),
            Self::Ceil => x.map(Dispatch::float_ceil),
            Self::Cos => x.map(Dispatch::float_cos),
            Self::Cosh => x.map(Dispatch::float_cosh),
            Self::Erf => x.map(Dispatch::float_erf),
            Self::Exp => x.exp(),
            Self::Floor => x.map(Dispatch::float_floor),
            Self::Log => x.map(Dispatch::float_log),
            Self::Neg => x.neg(),
            Self::Reciprocal => x.recip(),
            Self::Round => x.map(Dispatch::float_round),
            Self::Sign => x.map(Dispatch::float_sign),
            Self::Sin => x.map(Dispatch::float_sin),
            Self::Sinh => x.map(Dispatch::float_sinh),
            Self::Sqrt => x.sqrt(),
            Self::Tan => x.map(Dispatch::float_tan),
            // Truth values come from the host and never get here.
            Self::Not | Self::IsNaN | Self::IsInf { .. } => x,
        }
    }

    fn on_host(self, tensor: &Tensor) -> Result<Tensor, OperatorError> {
        if self == Self::Not {
            return Tensor::booleans(tensor.shape(), tensor.to_bool().iter().map(|&value| !value).collect());
        }
        let function = |value: i64| match self {
            Self::Abs => value.wrapping_abs(),
            Self::Neg => value.wrapping_neg(),
            Self::Sign => value.signum(),
            _ => value,
        };
        let values = tensor.to_i64().iter().map(|&value| function(value)).collect();
        Tensor::integers(tensor.shape(), tensor.element(), values)
    }
}
