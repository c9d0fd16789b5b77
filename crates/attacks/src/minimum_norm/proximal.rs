//! Proximal operators of the norms: `argmin_z ½‖z − x‖² + weight·‖z‖`.

use nocebo_core::Norm;

use super::frame::size;

/// Newton steps for the quartic of the 2/3 quasi-norm; it converges from above, quadratically.
const NEWTON_STEPS: usize = 40;

/// The proximal point of `x`. In place of L0, which is not continuous, stands `‖z‖` to the power 2/3 of the 2/3 quasi-norm.
pub(crate) fn proximal(norm: Norm, weight: f64, x: &[f64]) -> Vec<f64> {
    match norm {
        Norm::L0 => x.iter().map(|x| two_thirds(*x, weight)).collect(),
        Norm::L1 => x.iter().map(|x| x.signum() * (x.abs() - weight).max(0.0)).collect(),
        Norm::L2 => {
            let scale = (1.0 - weight / size(Norm::L2, x).max(f64::MIN_POSITIVE)).max(0.0);
            x.iter().map(|x| x * scale).collect()
        }
        Norm::Linf => {
            let most = clipping_level(x, weight);
            x.iter().map(|x| x.clamp(-most, most)).collect()
        }
    }
}

/// The level that the magnitudes exceed by `excess` in total; 0 when they do not reach as far.
fn clipping_level(x: &[f64], excess: f64) -> f64 {
    let mut magnitudes: Vec<f64> = x.iter().map(|x| x.abs()).collect();
    magnitudes.sort_by(|a, b| b.total_cmp(a));
    let mut sum = 0.0;
    let mut level = 0.0;
    for (index, magnitude) in magnitudes.iter().enumerate() {
        sum += magnitude;
        let candidate = (sum - excess) / (index + 1) as f64;
        if candidate < *magnitude {
            level = candidate;
        }
    }
    level.max(0.0)
}

/// `argmin_z ½(z − x)² + w·|z|^⅔`. With y = z^⅓ the stationary point solves y⁴ − |x|·y + ⅔w = 0; it is below the value
/// at 0 from |x| = 2·(⅔w)^¾ on.
fn two_thirds(x: f64, weight: f64) -> f64 {
    let constant = 2.0 / 3.0 * weight;
    let magnitude = x.abs();
    if magnitude <= 2.0 * constant.powf(0.75) {
        return 0.0;
    }
    let mut root = magnitude.cbrt();
    for _ in 0..NEWTON_STEPS {
        let next = root - (root.powi(4) - magnitude * root + constant) / (4.0 * root.powi(3) - magnitude);
        if next >= root {
            break;
        }
        root = next;
    }
    x.signum() * root.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_computed_points() {
        assert_eq!(proximal(Norm::L1, 1.0, &[3.0, -0.5, -2.0]), [2.0, 0.0, -1.0]);
        assert_eq!(proximal(Norm::L2, 2.5, &[3.0, -4.0]), [1.5, -2.0]);
        assert_eq!(proximal(Norm::L2, 5.5, &[3.0, -4.0]), [0.0, 0.0]);
        // 2 above the level in total: 5 − 3.5 and 4 − 3.5.
        assert_eq!(proximal(Norm::Linf, 2.0, &[5.0, -4.0, 1.0]), [3.5, -3.5, 1.0]);
        assert_eq!(proximal(Norm::Linf, 11.0, &[5.0, -4.0, 1.0]), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn no_other_point_has_a_lower_value() {
        for norm in [Norm::L0, Norm::L1, Norm::Linf] {
            for step in 0..60 {
                let (x, weight) = (f64::from(step) * 0.1 - 3.0, 0.7);
                let value = |z: f64| {
                    let power = if norm == Norm::L0 { z.abs().powf(2.0 / 3.0) } else { z.abs() };
                    0.5 * (z - x).powi(2) + weight * power
                };
                let found = value(proximal(norm, weight, &[x])[0]);
                let least = (-4000..=4000).map(|z| value(f64::from(z) * 1e-3)).fold(f64::INFINITY, f64::min);
                assert!(found <= least + 1e-9, "{norm} {x}: {found} {least}");
            }
        }
    }
}
