//! Functions of single precision that compile to vector instructions: no branches, no calls, no tables.
//!
//! Each is good to a few units of the last place; a NaN stays one.

/// `eˣ`; 0 and infinity outside what single precision holds.
///
/// `x = n ln 2 + r`, the Taylor series of `eʳ` to the seventh power, and `n` put into the exponent in two steps.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Rounds to a whole number when added, as its last bit counts ones.
    const ROUNDER: f32 = 12_582_912.0;
    let clamped = if x < -110.0 { -110.0 } else { x };
    let clamped = if clamped > 90.0 { 90.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    // ln 2 in two parts, of which the first has few bits.
    let r = (clamped - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let series = 1.0 + r * (1.0 / 7.0);
    let series = 1.0 + r * (1.0 / 6.0) * series;
    let series = 1.0 + r * (1.0 / 5.0) * series;
    let series = 1.0 + r * (1.0 / 4.0) * series;
    let series = 1.0 + r * (1.0 / 3.0) * series;
    let series = 1.0 + r * 0.5 * series;
    let series = 1.0 + r * series;
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    series * power(half) * power(n.wrapping_sub(half))
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent: near 0 its Taylor series to the thirteenth power, elsewhere `1 - 2 / (e²ˣ + 1)`.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let square = x * x;
    let series = -1382.0 / 155_925.0 + square * (21_844.0 / 6_081_075.0);
    let series = 62.0 / 2835.0 + square * series;
    let series = -17.0 / 315.0 + square * series;
    let series = 2.0 / 15.0 + square * series;
    let series = -1.0 / 3.0 + square * series;
    let near = x + x * square * series;
    let far = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if x.abs() < 0.4 { near } else { far }
}

/// The error function and `e^(-x²)`.
///
/// Near 0 the Maclaurin series to the fifteenth power; elsewhere the rational approximation 7.1.26 of Abramowitz & Stegun,
/// which is good to 1.5 · 10⁻⁷.
#[inline(always)]
pub(crate) fn erf(x: f32) -> (f32, f32) {
    let square = x * x;
    let bell = exp(-square);
    let series = 1.0 / 9360.0 - square * (1.0 / 75_600.0);
    let series = -1.0 / 1320.0 + square * series;
    let series = 1.0 / 216.0 + square * series;
    let series = -1.0 / 42.0 + square * series;
    let series = 1.0 / 10.0 + square * series;
    let series = -1.0 / 3.0 + square * series;
    let near = std::f32::consts::FRAC_2_SQRT_PI * (x + x * square * series);
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let sum = -1.453_152 + t * 1.061_405_4;
    let sum = 1.421_413_7 + t * sum;
    let sum = -0.284_496_74 + t * sum;
    let sum = 0.254_829_6 + t * sum;
    let far = (1.0 - t * sum * bell).copysign(x);
    (if x.abs() < 0.7 { near } else { far }, bell)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Greatest error of `of` against `exact`, relative to the greater of the value and `least`.
    fn error(range: f32, of: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, least: f64) -> f64 {
        let points = (-20_000..=20_000).map(|step| step as f32 / 20_000.0 * range);
        points
            .map(|x| {
                let exact = exact(f64::from(x));
                (f64::from(of(x)) - exact).abs() / exact.abs().max(least)
            })
            .fold(0.0, f64::max)
    }

    /// The error function by its integral: Simpson's rule.
    fn integral(x: f64) -> f64 {
        let (count, step) = (400, x / 400.0);
        let bell = |at: usize| (-(at as f64 * step).powi(2)).exp();
        let inner: f64 = (1..count).map(|at| bell(at) * if at % 2 == 1 { 4.0 } else { 2.0 }).sum();
        std::f64::consts::FRAC_2_SQRT_PI * step / 3.0 * (bell(0) + inner + bell(count))
    }

    #[test]
    fn functions_are_good_to_single_precision() {
        assert!(error(87.0, exp, f64::exp, 1e-37) < 2e-7);
        assert!(error(30.0, sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 1e-37) < 3e-7);
        for range in [0.01, 0.3, 12.0] {
            assert!(error(range, tanh, f64::tanh, 1e-37) < 4e-7);
        }
        assert!(error(4.0, |x| erf(x).1, |x| (-x * x).exp(), 1e-37) < 2e-6);
    }

    #[test]
    fn the_error_function_is_good_to_single_precision() {
        for range in [0.1, 1.0, 4.0] {
            let points = (1..400).map(|step| step as f32 / 400.0 * range);
            for x in points {
                let exact = integral(f64::from(x));
                assert!((f64::from(erf(x).0) - exact).abs() < 4e-7 * exact, "{x}: {} {exact}", erf(x).0);
                assert_eq!(erf(-x).0, -erf(x).0);
            }
        }
    }

    #[test]
    fn ends_and_what_is_no_number() {
        assert_eq!((exp(f32::INFINITY), exp(f32::NEG_INFINITY), exp(0.0)), (f32::INFINITY, 0.0, 1.0));
        assert_eq!((sigmoid(200.0), sigmoid(-200.0), tanh(100.0), tanh(-100.0)), (1.0, 0.0, 1.0, -1.0));
        assert!([exp(f32::NAN), sigmoid(f32::NAN), tanh(f32::NAN), erf(f32::NAN).0].iter().all(|y| y.is_nan()));
    }
}
