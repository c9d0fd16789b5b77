//! Activations: functions of one value that layers end with.

use burn::backend::Dispatch;
use burn::backend::ops::{ActivationOps, FloatTensorOps};

use super::{Arguments, Behaviour, Fact, Facts, Source, Target};
use crate::tensor::broadcast;
use crate::value::{DeviceTensor, Value};
use crate::{OperatorError, Tensor};

/// An activation; parameters have the names and defaults of ONNX.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x` above 0, `alpha · x` below.
    LeakyRelu {
        /// Slope below 0.
        alpha: f32,
    },
    /// `x` above 0, `slope · x` below; the slope is the second input.
    PRelu,
    /// `x` above 0, `alpha · (eˣ - 1)` below.
    Elu {
        /// Limit far below 0, negated.
        alpha: f32,
    },
    /// `gamma · Elu(x, alpha)`.
    Selu {
        /// Limit far below 0 before scaling, negated.
        alpha: f32,
        /// Scale.
        gamma: f32,
    },
    /// `max(x, 0) + min(0, alpha · (e^(x / alpha) - 1))`.
    Celu {
        /// Limit far below 0, negated.
        alpha: f32,
    },
    /// `x` above `alpha`, else 0.
    ThresholdedRelu {
        /// Threshold.
        alpha: f32,
    },
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// `alpha · x + beta` limited to [0, 1].
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at 0.
        beta: f32,
    },
    /// `x · HardSigmoid(x, 1/6, 1/2)`.
    HardSwish,
    /// Hyperbolic tangent.
    Tanh,
    /// `ln(1 + eˣ)`.
    Softplus,
    /// `x / (1 + |x|)`.
    Softsign,
    /// `x · Φ(x)` with the normal distribution function, or its approximation by tanh.
    Gelu {
        /// Whether the approximation is meant.
        tanh: bool,
    },
    /// `x · tanh(Softplus(x))`.
    Mish,
}

impl Behaviour for Activation {
    fn name(&self) -> &'static str {
        match self {
            Self::Relu => "Relu",
            Self::LeakyRelu { .. } => "LeakyRelu",
            Self::PRelu => "PRelu",
            Self::Elu { .. } => "Elu",
            Self::Selu { .. } => "Selu",
            Self::Celu { .. } => "Celu",
            Self::ThresholdedRelu { .. } => "ThresholdedRelu",
            Self::Sigmoid => "Sigmoid",
            Self::HardSigmoid { .. } => "HardSigmoid",
            Self::HardSwish => "HardSwish",
            Self::Tanh => "Tanh",
            Self::Softplus => "Softplus",
            Self::Softsign => "Softsign",
            Self::Gelu { .. } => "Gelu",
            Self::Mish => "Mish",
        }
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        Ok(Some(match source.operator {
            "Relu" => Self::Relu,
            "LeakyRelu" => Self::LeakyRelu { alpha: source.float_or("alpha", 0.01)? },
            "PRelu" => Self::PRelu,
            "Elu" => Self::Elu { alpha: source.float_or("alpha", 1.0)? },
            "Selu" => Self::Selu {
                alpha: source.float_or("alpha", 1.673_263_2)?,
                gamma: source.float_or("gamma", 1.050_701)?,
            },
            "Celu" => Self::Celu { alpha: source.float_or("alpha", 1.0)? },
            "ThresholdedRelu" => Self::ThresholdedRelu { alpha: source.float_or("alpha", 1.0)? },
            "Sigmoid" => Self::Sigmoid,
            "HardSigmoid" => {
                Self::HardSigmoid { alpha: source.float_or("alpha", 0.2)?, beta: source.float_or("beta", 0.5)? }
            }
            "HardSwish" => Self::HardSwish,
            "Tanh" => Self::Tanh,
            "Softplus" => Self::Softplus,
            "Softsign" => Self::Softsign,
            "Gelu" => match source.text_or("approximate", "none")?.as_str() {
                "none" => Self::Gelu { tanh: false },
                "tanh" => Self::Gelu { tanh: true },
                other => return Err(OperatorError::attribute("approximate", "none or tanh", other)),
            },
            "Mish" => Self::Mish,
            _ => return Ok(None),
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        match *self {
            Self::LeakyRelu { alpha }
            | Self::Elu { alpha }
            | Self::Celu { alpha }
            | Self::ThresholdedRelu { alpha } => {
                target.float("alpha", alpha);
            }
            Self::Selu { alpha, gamma } => {
                target.float("alpha", alpha);
                target.float("gamma", gamma);
            }
            Self::HardSigmoid { alpha, beta } => {
                target.float("alpha", alpha);
                target.float("beta", beta);
            }
            Self::Gelu { tanh } => target.text("approximate", if tanh { "tanh" } else { "none" }),
            _ => {}
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        let shape = inputs.shape(0)?.to_vec();
        if *self == Self::PRelu && broadcast(&[&shape, inputs.shape(1)?])? != shape {
            return Err(OperatorError::mismatch(
                "shape of the slope",
                format!("one that broadcasts to {shape:?}"),
                format!("{:?}", inputs.shape(1)?),
            ));
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let x = arguments.tensor(0)?;
        let y = match *self {
            Self::PRelu => {
                let slope = arguments.tensor(1)?;
                let positive = x.above(0.0);
                x.mul(&slope).replaced(&positive, &x)
            }
            _ => self.apply(x),
        };
        Ok(vec![Value::Device(y, arguments.get(0)?.element())])
    }

    fn has_weight_at(&self, position: usize, _constant: &Tensor) -> bool {
        *self == Self::PRelu && position == 1
    }

    fn least_opset(&self) -> i64 {
        match self {
            Self::Gelu { .. } => 20,
            Self::Mish => 18,
            Self::HardSwish => 14,
            Self::Celu { .. } => 12,
            _ => 1,
        }
    }
}

impl Activation {
    /// The activation of every element; all but `PRelu`, which needs its slope.
    pub(crate) fn apply(self, x: DeviceTensor) -> DeviceTensor {
        match self {
            Self::Relu => x.relu(),
            Self::LeakyRelu { alpha } => {
                let positive = x.above(0.0);
                x.clone().mul_scalar(alpha).replaced(&positive, &x)
            }
            Self::PRelu => x,
            Self::Elu { alpha } => exponential_below_zero(&x, alpha, 1.0),
            Self::Selu { alpha, gamma } => exponential_below_zero(&x, alpha, 1.0).mul_scalar(gamma),
            Self::Celu { alpha } => exponential_below_zero(&x, alpha, alpha),
            Self::ThresholdedRelu { alpha } => {
                let above = x.above(alpha);
                x.clone().mul_scalar(0.0).replaced(&above, &x)
            }
            Self::Sigmoid => x.sigmoid(),
            Self::HardSigmoid { alpha, beta } => x.mul_scalar(alpha).add_scalar(beta).clamped(0.0, 1.0),
            Self::HardSwish => x.mul(&Self::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }.apply(x.clone())),
            Self::Tanh => x.tanh(),
            Self::Softplus => x.neg().map(<Dispatch as ActivationOps<Dispatch>>::log_sigmoid).neg(),
            Self::Softsign => x.div(&x.clone().abs().add_scalar(1.0)),
            Self::Gelu { tanh: false } => {
                let phi =
                    x.clone().mul_scalar(std::f32::consts::FRAC_1_SQRT_2).map(Dispatch::float_erf).add_scalar(1.0);
                x.mul(&phi).mul_scalar(0.5)
            }
            Self::Gelu { tanh: true } => {
                let cube = x.mul(&x).mul(&x).mul_scalar(0.044_715);
                let inner = x.add(&cube).mul_scalar((2.0 / std::f32::consts::PI).sqrt());
                x.mul(&inner.tanh().add_scalar(1.0)).mul_scalar(0.5)
            }
            Self::Mish => x.mul(&Self::Softplus.apply(x.clone()).tanh()),
        }
    }
}

/// `x` above 0 and `alpha · (e^(x / width) - 1)` elsewhere, without the overflow of the exponential above 0.
fn exponential_below_zero(x: &DeviceTensor, alpha: f32, width: f32) -> DeviceTensor {
    let below = x.clone().clamped(f32::MIN, 0.0).mul_scalar(1.0 / width).exp().add_scalar(-1.0).mul_scalar(alpha);
    below.replaced(&x.above(0.0), x)
}
