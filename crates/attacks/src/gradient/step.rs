//! Steps along a gradient in each norm.

use nocebo_core::{Norm, ThreatModel};

/// Sign with `sign(0) = 0`, unlike [`f32::signum`].
pub(crate) fn sign(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { value.signum() }
}

/// Fraction of the elements that an L1 step moves (SLIDE: Tramèr & Boneh 2019, arXiv:1904.13000, q = 99 %).
const L1_FRACTION: f32 = 0.01;

/// Moves `point` by the steepest step of length `size` in `norm`, without projection.
///
/// ```text
/// Linf  x + s·sign(g)      L2  x + s·g/‖g‖₂
/// L1    x + s/k·sign(g) on the k = 1 % elements of greatest |g| that can still move (SLIDE)
/// L0    x + s·g/‖g‖∞       (PGD₀ of Croce & Hein 2019, arXiv:1909.05040, with our scaling)
/// ```
///
/// `size` is in the unit of the data. A zero gradient moves nothing.
pub(crate) fn ascend(threat: &ThreatModel, gradient: &[f32], size: f32, point: &mut [f32]) {
    match threat.norm() {
        Norm::Linf => {
            for (value, slope) in point.iter_mut().zip(gradient) {
                *value += size * sign(*slope);
            }
        }
        norm @ (Norm::L2 | Norm::L0) => {
            let length = if norm == Norm::L2 { Norm::L2.dual(gradient) } else { Norm::L0.dual(gradient) };
            if length > 0.0 {
                for (value, slope) in point.iter_mut().zip(gradient) {
                    *value += (f64::from(size) * f64::from(*slope) / length) as f32;
                }
            }
        }
        Norm::L1 => {
            let count = ((gradient.len() as f32 * L1_FRACTION).ceil() as usize).max(1);
            let movable = by_gain(gradient, |element| {
                let end = if gradient[element] > 0.0 { threat.domain().upper() } else { threat.domain().lower() };
                let free = threat.domain().is_mutable(element) && point[element] != end[element];
                if free { gradient[element].abs() } else { 0.0 }
            });
            for &element in movable.iter().take(count) {
                point[element] += size / count as f32 * sign(gradient[element]);
            }
        }
    }
}

/// Moves the clean `point` to where a linear function with this gradient is greatest within the threat model: the
/// whole budget in one step.
///
/// ```text
/// Linf  x + ε·sign(g)      L2  x + ε·g/‖g‖₂      (Goodfellow et al.; then projected onto the bounds)
/// L1    the elements of greatest |g| go to their bound, one after another, until the budget is spent
/// L0    the k elements of greatest |g|·(distance to the bound) go to their bound
/// ```
pub(crate) fn ascend_fully(threat: &ThreatModel, gradient: &[f32], point: &mut [f32]) {
    let domain = threat.domain();
    let room = |element: usize, value: f32| {
        if !domain.is_mutable(element) {
            0.0
        } else if gradient[element] > 0.0 {
            domain.upper()[element] - value
        } else {
            value - domain.lower()[element]
        }
    };
    match threat.norm() {
        Norm::Linf | Norm::L2 => ascend(threat, gradient, threat.epsilon(), point),
        Norm::L1 => {
            let mut budget = threat.epsilon();
            for element in
                by_gain(
                    gradient,
                    |element| if room(element, point[element]) > 0.0 { gradient[element].abs() } else { 0.0 },
                )
            {
                let move_by = room(element, point[element]).min(budget);
                point[element] += move_by * sign(gradient[element]);
                budget -= move_by;
                if budget <= 0.0 {
                    break;
                }
            }
        }
        Norm::L0 => {
            let gains = by_gain(gradient, |element| gradient[element].abs() * room(element, point[element]));
            for &element in gains.iter().take(threat.epsilon() as usize) {
                point[element] += room(element, point[element]) * sign(gradient[element]);
            }
        }
    }
}

/// Elements with a positive gain, the greatest first; the first of equals first.
fn by_gain(gradient: &[f32], gain: impl Fn(usize) -> f32) -> Vec<usize> {
    let mut elements: Vec<(f32, usize)> = (0..gradient.len()).map(|element| (gain(element), element)).collect();
    elements.retain(|(gain, _)| *gain > 0.0);
    elements.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    elements.into_iter().map(|(_, element)| element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::Domain;

    fn threat(norm: Norm, epsilon: f32) -> ThreatModel {
        ThreatModel::new(norm, epsilon, Domain::grey_levels(&[4], 255.0).unwrap()).unwrap()
    }

    #[test]
    fn hand_computed_steps() {
        let stepped = |norm, gradient: [f32; 4]| {
            let mut point = [100.0; 4];
            ascend(&threat(norm, 9.0), &gradient, 5.0, &mut point);
            point
        };
        assert_eq!(stepped(Norm::Linf, [2.0, 0.0, -0.1, 0.0]), [105.0, 100.0, 95.0, 100.0]);
        assert_eq!(stepped(Norm::L2, [3.0, 0.0, -4.0, 0.0]), [103.0, 100.0, 96.0, 100.0]);
        assert_eq!(stepped(Norm::L1, [3.0, 0.0, -4.0, 0.0]), [100.0, 100.0, 95.0, 100.0]);
        assert_eq!(stepped(Norm::L0, [3.0, 0.0, -4.0, 0.0]), [103.75, 100.0, 95.0, 100.0]);
        for norm in [Norm::L0, Norm::L1, Norm::L2, Norm::Linf] {
            assert_eq!(stepped(norm, [0.0, -0.0, 0.0, 0.0]), [100.0; 4], "{norm}");
        }
    }

    #[test]
    fn a_full_step_fills_the_ball() {
        let stepped = |norm, epsilon, gradient: [f32; 4]| {
            let mut point = [100.0, 250.0, 100.0, 100.0];
            ascend_fully(&threat(norm, epsilon), &gradient, &mut point);
            point
        };
        // 5 units of room in the steepest element, the rest of the budget in the next.
        assert_eq!(stepped(Norm::L1, 12.0, [1.0, 3.0, -2.0, 0.0]), [100.0, 255.0, 93.0, 100.0]);
        // The steepest element has little room: 3·5 < 2·100 and 1·155.
        assert_eq!(stepped(Norm::L0, 2.0, [1.0, 3.0, -2.0, 0.0]), [255.0, 250.0, 0.0, 100.0]);
        assert_eq!(stepped(Norm::Linf, 2.0, [1.0, 3.0, -2.0, 0.0]), [102.0, 252.0, 98.0, 100.0]);
    }
}
