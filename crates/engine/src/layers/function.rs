//! Functions of one value, and products and quotients of two.

use nocebo_graph::operators::{Activation, Unary};
use rayon::prelude::*;

use super::{Backward, Forward, Layer};

/// Elements of a task.
const BLOCK: usize = 1 << 12;

/// A function of one value with its derivative. Where there is none, the rules of [`nocebo_graph::operators`] hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Function {
    Activation(Activation),
    Unary(Unary),
    Clip { least: f32, greatest: f32 },
    Power(f32),
}

impl Function {
    /// Whether the engine computes it.
    pub(crate) fn is_known(self) -> bool {
        match self {
            Self::Activation(activation) => activation != Activation::PRelu,
            Self::Unary(unary) => matches!(
                unary,
                Unary::Abs
                    | Unary::Neg
                    | Unary::Exp
                    | Unary::Log
                    | Unary::Sqrt
                    | Unary::Reciprocal
                    | Unary::Sin
                    | Unary::Cos
                    | Unary::Erf
            ),
            Self::Clip { .. } | Self::Power(_) => true,
        }
    }

    /// Value and derivative at `x`.
    fn at(self, x: f32) -> (f32, f32) {
        match self {
            Self::Activation(activation) => activate(activation, x),
            Self::Unary(unary) => match unary {
                Unary::Abs => (
                    x.abs(),
                    if x > 0.0 {
                        1.0
                    } else if x < 0.0 {
                        -1.0
                    } else {
                        0.0
                    },
                ),
                Unary::Neg => (-x, -1.0),
                Unary::Exp => (x.exp(), x.exp()),
                Unary::Log => (x.ln(), 1.0 / x),
                Unary::Sqrt => (x.sqrt(), 0.5 / x.sqrt()),
                Unary::Reciprocal => (1.0 / x, -1.0 / (x * x)),
                Unary::Sin => (x.sin(), x.cos()),
                Unary::Cos => (x.cos(), -x.sin()),
                Unary::Erf => (erf(x), std::f32::consts::FRAC_2_SQRT_PI * (-x * x).exp()),
                _ => (f32::NAN, f32::NAN),
            },
            // A NaN passes through.
            Self::Clip { least, .. } if x < least => (least, 0.0),
            Self::Clip { greatest, .. } if x > greatest => (greatest, 0.0),
            Self::Clip { .. } => (x, 1.0),
            Self::Power(2.0) => (x * x, 2.0 * x),
            Self::Power(exponent) => (x.powf(exponent), exponent * x.powf(exponent - 1.0)),
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn activate(activation: Activation, x: f32) -> (f32, f32) {
    match activation {
        Activation::Relu => {
            if x <= 0.0 {
                (0.0, 0.0)
            } else {
                (x, 1.0)
            }
        }
        Activation::LeakyRelu { alpha } => {
            if x > 0.0 {
                (x, 1.0)
            } else {
                (alpha * x, alpha)
            }
        }
        Activation::Elu { alpha } => {
            if x > 0.0 {
                (x, 1.0)
            } else {
                (alpha * x.exp_m1(), alpha * x.exp())
            }
        }
        Activation::Selu { alpha, gamma } => {
            if x > 0.0 {
                (gamma * x, gamma)
            } else {
                (gamma * alpha * x.exp_m1(), gamma * alpha * x.exp())
            }
        }
        Activation::Celu { alpha } => {
            if x > 0.0 {
                (x, 1.0)
            } else {
                (alpha * (x / alpha).exp_m1(), (x / alpha).exp())
            }
        }
        Activation::ThresholdedRelu { alpha } => {
            if x <= alpha {
                (0.0, 0.0)
            } else {
                (x, 1.0)
            }
        }
        Activation::Sigmoid => {
            let y = sigmoid(x);
            (y, y * (1.0 - y))
        }
        Activation::HardSigmoid { alpha, beta } => {
            let line = alpha * x + beta;
            (line.clamp(0.0, 1.0), if (0.0..=1.0).contains(&line) { alpha } else { 0.0 })
        }
        Activation::HardSwish => {
            let line = x / 6.0 + 0.5;
            let gate = line.clamp(0.0, 1.0);
            (x * gate, if (0.0..=1.0).contains(&line) { gate + x / 6.0 } else { gate })
        }
        Activation::Tanh => {
            let y = x.tanh();
            (y, 1.0 - y * y)
        }
        Activation::Softplus => (x.max(0.0) + (-x.abs()).exp().ln_1p() + 0.0 * x, sigmoid(x)),
        Activation::Softsign => (x / (1.0 + x.abs()), 1.0 / (1.0 + x.abs()).powi(2)),
        Activation::Gelu { tanh: false } => {
            let phi = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
            let density =
                (-0.5 * x * x).exp() * (0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2);
            (x * phi, phi + x * density)
        }
        Activation::Gelu { tanh: true } => {
            let root = (2.0 / std::f32::consts::PI).sqrt();
            let inner = (root * (x + 0.044_715 * x * x * x)).tanh();
            let slope = root * (1.0 + 3.0 * 0.044_715 * x * x);
            (0.5 * x * (1.0 + inner), 0.5 * (1.0 + inner) + 0.5 * x * (1.0 - inner * inner) * slope)
        }
        Activation::Mish => {
            let (soft, slope) = activate(Activation::Softplus, x);
            let gate = soft.tanh();
            (x * gate, gate + x * (1.0 - gate * gate) * slope)
        }
        Activation::PRelu => (f32::NAN, f32::NAN),
    }
}

/// The error function to about 1 in 10⁷.
///
/// Below 2 its Maclaurin series; above, one minus the continued fraction of the complement (Abramowitz & Stegun 7.1.5 and
/// 7.1.14), in f64.
fn erf(x: f32) -> f32 {
    let a = f64::from(x.abs());
    if a.is_nan() {
        return x;
    }
    let value = if a < 2.0 {
        let (mut term, mut sum) = (a, a);
        for n in 1..40 {
            let n = f64::from(n);
            term *= -a * a / n;
            sum += term / (2.0 * n + 1.0);
        }
        std::f64::consts::FRAC_2_SQRT_PI * sum
    } else if a < 6.0 {
        let fraction = (1..60).rev().fold(a, |tail, k| a + f64::from(k) / 2.0 / tail);
        1.0 - (-a * a).exp() / (fraction * std::f64::consts::PI.sqrt())
    } else {
        1.0
    };
    (value as f32).copysign(x)
}

impl Layer for Function {
    fn forward(&self, pass: Forward<'_>) {
        let blocks = pass.output.par_chunks_mut(BLOCK).zip(pass.inputs[0].par_chunks(BLOCK));
        blocks.for_each(|(output, input)| output.iter_mut().zip(input).for_each(|(y, &x)| *y = self.at(x).0));
    }

    fn backward(&self, pass: Backward<'_>) {
        let blocks = pass.gradient.par_chunks_mut(BLOCK).zip(pass.inputs[0].par_chunks(BLOCK));
        blocks.zip(pass.slope.par_chunks(BLOCK)).for_each(|((gradient, input), slope)| {
            for ((gradient, &x), slope) in gradient.iter_mut().zip(input).zip(slope) {
                let part = slope * self.at(x).1;
                *gradient = if pass.accumulate { *gradient + part } else { part };
            }
        });
    }

    fn keeps_inputs(&self) -> bool {
        true
    }

    fn kernel(&self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// `x · y`, `x / y` or `x - y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    Product,
    Quotient,
    Difference,
}

impl Layer for Pair {
    fn forward(&self, pass: Forward<'_>) {
        let (left, right) = (pass.inputs[0].par_chunks(BLOCK), pass.inputs[1].par_chunks(BLOCK));
        pass.output.par_chunks_mut(BLOCK).zip(left.zip(right)).for_each(|(output, (left, right))| {
            for (z, (&x, &y)) in output.iter_mut().zip(left.iter().zip(right)) {
                *z = match self {
                    Self::Product => x * y,
                    Self::Quotient => x / y,
                    Self::Difference => x - y,
                };
            }
        });
    }

    fn backward(&self, pass: Backward<'_>) {
        let slopes = pass.slope.par_chunks(BLOCK).enumerate();
        pass.gradient.par_chunks_mut(BLOCK).zip(slopes).for_each(|(gradient, (block, slopes))| {
            for (at, (gradient, &slope)) in gradient.iter_mut().zip(slopes).enumerate() {
                let at = block * BLOCK + at;
                let input = |position: usize| pass.inputs[position][at];
                let part = match (self, pass.position) {
                    (Self::Product, position) => slope * input(1 - position),
                    (Self::Quotient, 0) => slope / input(1),
                    (Self::Quotient, _) => -slope * input(0) / (input(1) * input(1)),
                    (Self::Difference, 0) => slope,
                    (Self::Difference, _) => -slope,
                };
                *gradient = if pass.accumulate { *gradient + part } else { part };
            }
        });
    }

    fn keeps_inputs(&self) -> bool {
        *self != Self::Difference
    }

    fn kernel(&self) -> String {
        format!("{self:?}").to_lowercase()
    }
}
