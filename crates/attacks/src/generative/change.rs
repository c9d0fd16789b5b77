//! How the output of a generator becomes a point that the threat model allows, and how slopes come back.
//!
//! ```text
//! u in (−1, 1) one value an element,  rᵢ = min(ε, range of element i),  B_ε the ball
//! perturbation   d = r·u                        image   d = middle + range/2·u − x        full   d = ε·u/‖u‖
//! x′ = clip(x + B_ε(d)),   B_ε(d) = d within the ball, else  ε·d/‖d‖₂ (L2)  or  clip(d, −ε, ε) (Linf)
//! ```
//!
//! The derivative is that of this map, but where an element is clipped its slope is kept if a step down would lead back
//! inside; else a generator that starts outside would never learn. The factor 1/‖u‖∞ is held constant.

use nocebo_core::{Norm, ThreatModel};

use crate::transfer::momentum::reach;

/// What the output of a generator means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// A change, up to epsilon in each element.
    Perturbation,
    /// The whole sample.
    Image,
    /// The direction of a change that always has the size of epsilon.
    Full,
}

impl Form {
    /// d, before the ball and the bounds.
    fn change(self, threat: &ThreatModel, clean: &[f32], unit: &[f32]) -> Vec<f64> {
        let factors = self.factors(threat, unit);
        let domain = threat.domain();
        let at = |(element, value): (usize, &f32)| {
            let moved = factors[element] * f64::from(*value);
            match self {
                Self::Image => {
                    let middle = 0.5 * (f64::from(domain.lower()[element]) + f64::from(domain.upper()[element]));
                    middle + moved - f64::from(clean[element])
                }
                Self::Perturbation | Self::Full => moved,
            }
        };
        let mut change: Vec<f64> = unit.iter().enumerate().map(at).collect();
        for (element, part) in change.iter_mut().enumerate() {
            if !domain.is_mutable(element) {
                *part = 0.0;
            }
        }
        change
    }

    /// d d / d u, element by element.
    fn factors(self, threat: &ThreatModel, unit: &[f32]) -> Vec<f64> {
        let domain = threat.domain();
        let ranges = domain.lower().iter().zip(domain.upper()).map(|(low, high)| f64::from(high - low));
        let epsilon = f64::from(reach(threat));
        match self {
            Self::Perturbation => ranges.map(|range| range.min(epsilon)).collect(),
            Self::Image => ranges.map(|range| 0.5 * range).collect(),
            Self::Full => {
                let free = unit.iter().enumerate().filter(|(element, _)| domain.is_mutable(*element));
                let free: Vec<f32> = free.map(|(_, value)| *value).collect();
                let size = threat.norm().distance(&free, &vec![0.0; free.len()]);
                vec![epsilon / size.max(1e-12); unit.len()]
            }
        }
    }

    /// x′.
    pub(super) fn point(self, threat: &ThreatModel, clean: &[f32], unit: &[f32]) -> Vec<f32> {
        let change = self.change(threat, clean, unit);
        let shrunk = shrink(threat, &change);
        let mut point: Vec<f32> =
            change.iter().zip(clean).map(|(part, clean)| (f64::from(*clean) + shrunk * part) as f32).collect();
        threat.project_row(clean, &mut point);
        point
    }

    /// d loss / d u from `slopes` = d loss / d x′.
    pub(super) fn pull_back(self, threat: &ThreatModel, clean: &[f32], unit: &[f32], slopes: &[f32]) -> Vec<f32> {
        let (domain, epsilon) = (threat.domain(), f64::from(threat.epsilon()));
        let change = self.change(threat, clean, unit);
        let shrunk = shrink(threat, &change);
        let kept = |element: usize| {
            let slope = f64::from(slopes[element]);
            let (moved, value) = (shrunk * change[element], f64::from(clean[element]));
            let room = if threat.norm() == Norm::Linf { epsilon } else { f64::INFINITY };
            let least = (f64::from(domain.lower()[element]) - value).max(-room);
            let greatest = (f64::from(domain.upper()[element]) - value).min(room);
            let outward = moved > greatest && slope < 0.0 || moved < least && slope > 0.0;
            if outward || !domain.is_mutable(element) { 0.0 } else { slope }
        };
        let mut pulled: Vec<f64> = (0..slopes.len()).map(kept).collect();
        if threat.norm() == Norm::L2 && (shrunk < 1.0 || self == Self::Full) {
            // The length is fixed: only what turns the change remains.
            let squared: f64 = change.iter().map(|part| part * part).sum::<f64>().max(1e-300);
            let along = pulled.iter().zip(&change).map(|(slope, part)| slope * part).sum::<f64>() / squared;
            for (slope, part) in pulled.iter_mut().zip(&change) {
                *slope = shrunk * (*slope - along * part);
            }
        }
        let factors = self.factors(threat, unit);
        pulled.iter().zip(factors).map(|(slope, factor)| (slope * factor) as f32).collect()
    }
}

/// What brings a change into the L2 ball; the Linf ball is a matter of each element, and the other balls of the last
/// projection.
fn shrink(threat: &ThreatModel, change: &[f64]) -> f64 {
    let length = change.iter().map(|part| part * part).sum::<f64>().sqrt();
    let epsilon = f64::from(threat.epsilon());
    if threat.norm() == Norm::L2 && length > epsilon { epsilon / length } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite;

    const FORMS: [Form; 3] = [Form::Perturbation, Form::Image, Form::Full];

    fn threat(norm: Norm, epsilon: f32) -> ThreatModel {
        let domain = suite::ct_domain().with_region((0..12).map(|at| at != 4).collect()).unwrap();
        ThreatModel::new(norm, epsilon, domain).unwrap()
    }

    fn unit() -> Vec<f32> {
        (0..12).map(|at| ((at * 7 + 3) % 11) as f32 / 6.0 - 0.9).collect()
    }

    #[test]
    fn every_point_is_allowed_and_a_full_change_has_the_size_of_epsilon() {
        let samples = suite::ct_samples();
        for (norm, epsilon) in
            [(Norm::Linf, 20.0), (Norm::L2, 60.0), (Norm::Linf, f32::INFINITY), (Norm::L2, 0.0), (Norm::Linf, 0.0)]
        {
            for form in FORMS {
                let (threat, clean) = (threat(norm, epsilon), samples.row(1));
                let point = form.point(&threat, clean, &unit());
                assert!(threat.allows(clean, &point), "{form:?} {norm} {epsilon}");
                if form == Form::Full && epsilon.is_finite() {
                    assert!((norm.distance(clean, &point) - f64::from(epsilon)).abs() < 1e-3, "{norm}");
                }
                assert_eq!(form.point(&threat, clean, &[0.0; 12]) == clean, form != Form::Image || epsilon == 0.0);
            }
        }
    }

    #[test]
    fn slopes_agree_with_central_differences_inside_the_bounds() {
        let samples = suite::ct_samples();
        let slopes: Vec<f32> = (0..12).map(|at| ((at * 5 + 1) % 7) as f32 / 3.0 - 1.0).collect();
        // An image within 1e4 HU is never clipped by the ball; a full Linf change holds its factor constant.
        for (form, norm, epsilon) in [
            (Form::Perturbation, Norm::Linf, 20.0),
            (Form::Perturbation, Norm::L2, 25.0),
            (Form::Perturbation, Norm::L2, 1e4),
            (Form::Image, Norm::L2, 300.0),
            (Form::Image, Norm::Linf, 1e4),
            (Form::Full, Norm::L2, 60.0),
        ] {
            let (threat, clean) = (threat(norm, epsilon), samples.row(2));
            // Far from the bounds, which 1e4 HU would reach.
            let unit: Vec<f32> = unit().iter().map(|value| if epsilon > 1e3 { 0.02 * value } else { *value }).collect();
            let ours = form.pull_back(&threat, clean, &unit, &slopes);
            for element in 0..12 {
                let at = |shift: f32| {
                    let mut moved = unit.clone();
                    moved[element] += shift;
                    let point = form.point(&threat, clean, &moved);
                    point.iter().zip(&slopes).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
                };
                let slope = (at(2e-3) - at(-2e-3)) / 4e-3;
                let close = (slope - f64::from(ours[element])).abs() < 1e-2 * slope.abs() + 0.1;
                assert!(close, "{form:?} {norm} {element}: {slope} {}", ours[element]);
            }
            assert_eq!(ours[4], 0.0);
        }
    }

    #[test]
    fn a_clipped_element_may_only_come_back() {
        let samples = suite::ct_samples();
        let threat = threat(Norm::Linf, 5.0);
        // The image 3071 HU lies far above the ball.
        let (ones, clean) = ([1.0; 12], samples.row(0));
        assert!(Form::Image.pull_back(&threat, clean, &ones, &[-1.0; 12]).iter().all(|slope| *slope == 0.0));
        let back = Form::Image.pull_back(&threat, clean, &ones, &[1.0; 12]);
        assert!(back.iter().enumerate().all(|(element, slope)| (*slope > 0.0) == (element != 4)), "{back:?}");
    }
}
