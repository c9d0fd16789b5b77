//! Functions of one value, and products and quotients of two.

use nocebo_graph::operators::{Activation, Unary};
use rayon::prelude::*;

use super::{Backward, Forward, Layer};
use crate::kernels::{InstructionSet, vectorised};
use crate::math::{erf, exp, sigmoid, tanh};

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
    #[inline(always)]
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
                Unary::Exp => (exp(x), exp(x)),
                Unary::Log => (x.ln(), 1.0 / x),
                Unary::Sqrt => (x.sqrt(), 0.5 / x.sqrt()),
                Unary::Reciprocal => (1.0 / x, -1.0 / (x * x)),
                Unary::Sin => (x.sin(), x.cos()),
                Unary::Cos => (x.cos(), -x.sin()),
                Unary::Erf => {
                    let (y, bell) = erf(x);
                    (y, std::f32::consts::FRAC_2_SQRT_PI * bell)
                }
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

#[inline(always)]
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
            let y = tanh(x);
            (y, 1.0 - y * y)
        }
        Activation::Softplus => (x.max(0.0) + (-x.abs()).exp().ln_1p() + 0.0 * x, sigmoid(x)),
        Activation::Softsign => (x / (1.0 + x.abs()), 1.0 / (1.0 + x.abs()).powi(2)),
        Activation::Gelu { tanh: false } => {
            // erf(x / √2) comes with e^(-x² / 2).
            let (y, bell) = erf(x * std::f32::consts::FRAC_1_SQRT_2);
            let phi = 0.5 * (1.0 + y);
            let density = bell * (0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2);
            (x * phi, phi + x * density)
        }
        Activation::Gelu { tanh: true } => {
            let root = (2.0 / std::f32::consts::PI).sqrt();
            let inner = tanh(root * (x + 0.044_715 * x * x * x));
            let slope = root * (1.0 + 3.0 * 0.044_715 * x * x);
            (0.5 * x * (1.0 + inner), 0.5 * (1.0 + inner) + 0.5 * x * (1.0 - inner * inner) * slope)
        }
        Activation::Mish => {
            let (soft, slope) = activate(Activation::Softplus, x);
            let gate = tanh(soft);
            (x * gate, gate + x * (1.0 - gate * gate) * slope)
        }
        Activation::PRelu => (f32::NAN, f32::NAN),
    }
}

/// Runs `$work` for the function by its own name where that is one that large networks are full of: the compiler then makes
/// vector instructions of it.
macro_rules! by_name {
    ($function:expr, |$named:ident| $work:expr) => {
        match $function {
            Function::Activation(Activation::Sigmoid) => {
                let $named = Function::Activation(Activation::Sigmoid);
                $work
            }
            Function::Activation(Activation::Tanh) => {
                let $named = Function::Activation(Activation::Tanh);
                $work
            }
            Function::Activation(Activation::HardSwish) => {
                let $named = Function::Activation(Activation::HardSwish);
                $work
            }
            Function::Activation(Activation::Gelu { tanh: false }) => {
                let $named = Function::Activation(Activation::Gelu { tanh: false });
                $work
            }
            Function::Unary(Unary::Erf) => {
                let $named = Function::Unary(Unary::Erf);
                $work
            }
            Function::Clip { least, greatest } => {
                let $named = Function::Clip { least, greatest };
                $work
            }
            $named => $work,
        }
    };
}

impl Function {
    fn block(self, set: InstructionSet, input: &[f32], output: &mut [f32]) {
        by_name!(self, |function| vectorised(
            set,
            #[inline(always)]
            || {
                output.iter_mut().zip(input).for_each(|(y, &x)| *y = function.at(x).0);
            }
        ));
    }

    fn block_back(self, set: InstructionSet, input: &[f32], slope: &[f32], gradient: &mut [f32], accumulate: bool) {
        by_name!(self, |function| vectorised(
            set,
            #[inline(always)]
            || {
                for (gradient, (&x, slope)) in gradient.iter_mut().zip(input.iter().zip(slope)) {
                    let part = slope * function.at(x).1;
                    *gradient = if accumulate { *gradient + part } else { part };
                }
            }
        ));
    }
}

impl Layer for Function {
    fn forward(&self, pass: Forward<'_>) {
        let blocks = pass.output.par_chunks_mut(BLOCK).zip(pass.inputs[0].par_chunks(BLOCK));
        blocks.for_each(|(output, input)| self.block(pass.set, input, output));
    }

    fn backward(&self, pass: Backward<'_>) {
        let blocks = pass.gradient.par_chunks_mut(BLOCK).zip(pass.inputs[0].par_chunks(BLOCK));
        blocks.zip(pass.slope.par_chunks(BLOCK)).for_each(|((gradient, input), slope)| {
            self.block_back(pass.set, input, slope, gradient, pass.accumulate);
        });
    }

    fn keeps_inputs(&self) -> bool {
        true
    }

    fn kernel(&self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// `x` above 0, `slope · x` elsewhere, with slopes that repeat along a sample.
pub(crate) struct PRelu {
    pub(crate) slopes: Vec<f32>,
}

impl Layer for PRelu {
    fn forward(&self, pass: Forward<'_>) {
        let rows = pass.output.par_chunks_mut(self.slopes.len()).zip(pass.inputs[0].par_chunks(self.slopes.len()));
        rows.with_min_len(BLOCK.div_ceil(self.slopes.len())).for_each(|(output, input)| {
            for (y, (x, slope)) in output.iter_mut().zip(input.iter().zip(&self.slopes)) {
                *y = if *x > 0.0 { *x } else { slope * x };
            }
        });
    }

    fn backward(&self, pass: Backward<'_>) {
        let rows = pass.gradient.par_chunks_mut(self.slopes.len()).zip(pass.inputs[0].par_chunks(self.slopes.len()));
        let rows = rows.zip(pass.slope.par_chunks(self.slopes.len())).with_min_len(BLOCK.div_ceil(self.slopes.len()));
        rows.for_each(|((gradient, input), above)| {
            for (at, gradient) in gradient.iter_mut().enumerate() {
                let part = above[at] * if input[at] > 0.0 { 1.0 } else { self.slopes[at] };
                *gradient = if pass.accumulate { *gradient + part } else { part };
            }
        });
    }

    fn keeps_inputs(&self) -> bool {
        true
    }

    fn kernel(&self) -> String {
        "prelu".to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::tests::{agrees_with_f64, numbers};

    #[test]
    fn prelu_and_its_gradient_agree_with_f64() {
        let layer = PRelu { slopes: vec![0.1, -0.5, 2.0] };
        agrees_with_f64(InstructionSet::Portable, &layer, 2, &[numbers(24, 1)], 12, 1e-6, |inputs| {
            let slope = |at: usize| [f64::from(0.1_f32), -0.5, 2.0][at % 3];
            inputs[0].iter().enumerate().map(|(at, &x)| if x > 0.0 { x } else { slope(at) * x }).collect()
        });
    }

    #[test]
    fn functions_agree_with_their_differences() {
        for set in InstructionSet::available() {
            for (function, exact) in [
                (Function::Activation(Activation::Sigmoid), (|x: f64| 1.0 / (1.0 + (-x).exp())) as fn(f64) -> f64),
                (Function::Activation(Activation::Tanh), f64::tanh),
                (Function::Activation(Activation::HardSwish), |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
                (Function::Activation(Activation::Gelu { tanh: true }), |x| {
                    0.5 * x * (1.0 + (f64::sqrt(2.0 / std::f64::consts::PI) * (x + 0.044_715 * x.powi(3))).tanh())
                }),
                (Function::Clip { least: -0.5, greatest: 0.25 }, |x| x.clamp(-0.5, 0.25)),
                (Function::Unary(Unary::Exp), f64::exp),
            ] {
                agrees_with_f64(set, &function, 1, &[numbers(50, 1)], 50, 1e-6, |inputs| {
                    inputs[0].iter().map(|x| exact(*x)).collect()
                });
            }
        }
    }
}
