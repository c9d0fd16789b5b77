//! The four norms, distances, and exact projections onto ball ∩ bounds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Domain, Error};

/// Norm in which a perturbation is measured, over all elements of a sample.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Number of changed elements.
    L0,
    /// Sum of absolute changes.
    L1,
    /// Root of the sum of squared changes.
    L2,
    /// Greatest absolute change.
    Linf,
}

impl fmt::Display for Norm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::L0 => "l0",
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::Linf => "linf",
        })
    }
}

impl FromStr for Norm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.to_ascii_lowercase().as_str() {
            "l0" => Ok(Self::L0),
            "l1" => Ok(Self::L1),
            "l2" => Ok(Self::L2),
            "linf" => Ok(Self::Linf),
            _ => Err(Error::invalid("norm", "one of l0, l1, l2, linf", text)),
        }
    }
}

impl Norm {
    /// Distance between two rows, summed in f64.
    ///
    /// ```
    /// # use nocebo_core::Norm;
    /// assert_eq!(Norm::L2.distance(&[0.0, 3.0], &[4.0, 0.0]), 5.0);
    /// assert_eq!(Norm::L0.distance(&[0.0, 3.0], &[0.0, 0.0]), 1.0);
    /// ```
    pub fn distance(self, a: &[f32], b: &[f32]) -> f64 {
        let changes = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
        match self {
            Self::L0 => changes.filter(|change| *change > 0.0).count() as f64,
            Self::L1 => changes.sum(),
            Self::L2 => changes.map(|change| change * change).sum::<f64>().sqrt(),
            Self::Linf => changes.fold(0.0, f64::max),
        }
    }

    /// A distance that no two points within the bounds exceed.
    pub fn greatest_distance(self, domain: &Domain) -> f32 {
        let (range, elements) = (domain.range(), domain.elements() as f32);
        match self {
            Self::L0 => elements,
            Self::L1 => range * elements,
            Self::L2 => range * elements.sqrt(),
            Self::Linf => range,
        }
    }

    /// The norm of the dual: how fast a linear objective with this gradient can grow, for a unit step.
    ///
    /// L1 of the gradient for Linf, L2 for L2, Linf for L1. For L0 there is no dual; the greatest magnitude is returned.
    pub fn dual(self, gradient: &[f32]) -> f64 {
        let zero = vec![0.0; gradient.len()];
        match self {
            Self::Linf => Self::L1.distance(gradient, &zero),
            Self::L2 => Self::L2.distance(gradient, &zero),
            Self::L0 | Self::L1 => Self::Linf.distance(gradient, &zero),
        }
    }

    /// Moves `point` to the nearest point (in Euclidean distance) that is within `epsilon` of `clean`, inside the
    /// bounds of the domain, and equal to `clean` outside its region of interest.
    ///
    /// The projection is onto the intersection, not first onto the ball and then onto the bounds, which is not the
    /// nearest point for L1 and L2. Float rounding may leave the distance above epsilon by a relative 1e-6.
    /// `clean` must lie inside the bounds ([`Domain::check`]).
    ///
    /// # Panics
    ///
    /// When a row does not have one value an element of the domain.
    pub fn project(self, epsilon: f32, domain: &Domain, clean: &[f32], point: &mut [f32]) {
        assert!(clean.len() == domain.elements() && point.len() == domain.elements());
        match self {
            Self::Linf => project_linf(epsilon, domain, clean, point),
            Self::L2 => project_scaled(epsilon, domain, clean, point, Self::L2),
            Self::L1 => project_scaled(epsilon, domain, clean, point, Self::L1),
            Self::L0 => project_l0(epsilon, domain, clean, point),
        }
    }
}

/// The allowed interval of the change of one element: what is allowed minus clean.
fn room(domain: &Domain, clean: &[f32], element: usize) -> (f64, f64) {
    let (lower, upper) = domain.allowed(element, clean[element]);
    let value = f64::from(clean[element]);
    (f64::from(lower) - value, f64::from(upper) - value)
}

fn project_linf(epsilon: f32, domain: &Domain, clean: &[f32], point: &mut [f32]) {
    for (element, value) in point.iter_mut().enumerate() {
        *value = if domain.is_mutable(element) {
            let (lower, upper) = domain.allowed(element, clean[element]);
            value.clamp((clean[element] - epsilon).max(lower), (clean[element] + epsilon).min(upper))
        } else {
            clean[element]
        };
    }
}

/// L1 and L2: the nearest point is the change, shrunk and then clipped to its room, for the least shrinking that meets the budget
/// (the optimality conditions of the projection). L2 shrinks by a factor, L1 by soft-thresholding.
fn project_scaled(epsilon: f32, domain: &Domain, clean: &[f32], point: &mut [f32], norm: Norm) {
    let budget = f64::from(epsilon);
    // Size of each change, and how far it may go in its direction.
    let sizes: Vec<(f64, f64)> = (0..point.len())
        .map(|element| {
            let (low, high) = room(domain, clean, element);
            let change = f64::from(point[element]) - f64::from(clean[element]);
            (change.abs(), if change < 0.0 { -low } else { high })
        })
        .collect();
    let (factor, threshold) = match norm {
        Norm::L2 => (factor_within(budget, &sizes), 0.0),
        _ => (1.0, threshold_within(budget, &sizes)),
    };
    for (element, (value, (size, room))) in point.iter_mut().zip(sizes).enumerate() {
        let kept = (factor * size - threshold).max(0.0).min(room);
        let kept = if *value < clean[element] { -kept } else { kept };
        let (lower, upper) = domain.allowed(element, clean[element]);
        *value = ((f64::from(clean[element]) + kept) as f32).clamp(lower, upper);
    }
}

/// The greatest factor f ≤ 1 with Σ min(f·size, room)² ≤ budget².
///
/// Where it is known which elements are stopped by their room, f follows from the others. Too small an f stops too few; each
/// round stops those of the last f and finds a greater one, until no more are stopped.
fn factor_within(budget: f64, sizes: &[(f64, f64)]) -> f64 {
    let whole: f64 = sizes.iter().map(|(size, room)| size.min(*room).powi(2)).sum();
    if whole.sqrt() <= budget {
        return 1.0;
    }
    let (mut factor, mut stopped) = (0.0, usize::MAX);
    loop {
        let (mut free, mut spent, mut now) = (0.0, 0.0, 0);
        for (size, room) in sizes {
            if factor * size < *room {
                free += size * size;
            } else {
                spent += room * room;
                now += 1;
            }
        }
        if now == stopped || free == 0.0 {
            return factor;
        }
        stopped = now;
        factor = ((budget * budget - spent).max(0.0) / free).sqrt().clamp(factor, 1.0);
    }
}

/// The least threshold t ≥ 0 with Σ min(max(size − t, 0), room) ≤ budget.
///
/// The sum is linear in t between the values at which an element begins or ends to shrink: bisection, helped by the slope, until
/// no such value is left in between.
fn threshold_within(budget: f64, sizes: &[(f64, f64)]) -> f64 {
    // Sum at a threshold, elements that shrink there, and those that are zero.
    let at = |threshold: f64| {
        let (mut sum, mut shrinking, mut zero) = (0.0, 0_usize, 0_usize);
        for (size, room) in sizes {
            let kept = (size - threshold).max(0.0).min(*room);
            sum += kept;
            shrinking += usize::from(kept > 0.0 && kept < *room);
            zero += usize::from(kept == 0.0);
        }
        (sum, shrinking, zero)
    };
    let (mut low, mut below) = (0.0, at(0.0));
    if below.0 <= budget {
        return 0.0;
    }
    let mut high = sizes.iter().map(|(size, _)| *size).fold(0.0, f64::max);
    let mut above = at(high);
    for round in 0..200 {
        if below.1 > 0 && (below.1, below.2) == (above.1, above.2) {
            return (low + (below.0 - budget) / below.1 as f64).min(high);
        }
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        let guess = if below.1 > 0 { low + (below.0 - budget) / below.1 as f64 } else { middle };
        let next = if round % 2 == 0 && guess > low && guess < high { guess } else { middle };
        let found = at(next);
        if found.0 > budget {
            (low, below) = (next, found);
        } else {
            (high, above) = (next, found);
        }
    }
    high
}

/// L0: keep the changes whose loss would cost most, that is with the greatest `change² − (change − clipped)²`.
fn project_l0(epsilon: f32, domain: &Domain, clean: &[f32], point: &mut [f32]) {
    let keep = epsilon.max(0.0).floor().min(point.len() as f32) as usize;
    let mut gains = Vec::with_capacity(point.len());
    for (element, value) in point.iter_mut().enumerate() {
        let (low, high) = room(domain, clean, element);
        let change = f64::from(*value) - f64::from(clean[element]);
        let clipped = change.clamp(low, high);
        if clipped == 0.0 {
            *value = clean[element];
        } else {
            let (lower, upper) = domain.allowed(element, clean[element]);
            *value = value.clamp(lower, upper);
            gains.push((change * change - (change - clipped).powi(2), element));
        }
    }
    gains.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    for &(_, element) in gains.iter().skip(keep) {
        point[element] = clean[element];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Column, Direction, DomainConfig, Field, Unit};
    use proptest::prelude::*;

    const NORMS: [Norm; 4] = [Norm::L0, Norm::L1, Norm::L2, Norm::Linf];

    fn domain(elements: usize, region: Option<Vec<bool>>) -> Domain {
        DomainConfig {
            shape: vec![elements],
            unit: Unit::GreyLevel,
            lower: Field::Uniform(0.0),
            upper: Field::Uniform(10.0),
            resolution: Field::Uniform(1.0),
            region,
        }
        .try_into()
        .unwrap()
    }

    #[test]
    fn hand_computed_projections() {
        let free = domain(2, None);
        let clean = [5.0, 5.0];
        let project = |norm: Norm, epsilon, point: [f32; 2]| {
            let mut point = point;
            norm.project(epsilon, &free, &clean, &mut point);
            point
        };
        assert_eq!(project(Norm::Linf, 2.0, [9.0, 4.0]), [7.0, 4.0]);
        assert_eq!(project(Norm::L2, 2.5, [8.0, 9.0]), [6.5, 7.0]);
        assert_eq!(project(Norm::L1, 1.0, [8.0, 5.5]), [6.0, 5.0]);
        assert_eq!(project(Norm::L0, 1.0, [8.0, 9.0]), [5.0, 9.0]);
    }

    #[test]
    fn the_intersection_is_not_ball_then_box() {
        // The first element may only move by 1, so the L2 budget of 5 goes to the second: √(25 − 1), not 4.
        let clean = [9.0, 0.0];
        let mut point = [12.0, 4.8989797];
        let expected = 24.0_f32.sqrt();
        Norm::L2.project(5.0, &domain(2, None), &clean, &mut point);
        assert_eq!(point[0], 10.0);
        assert!((point[1] - expected).abs() < 1e-5, "{point:?}");
    }

    #[test]
    fn a_column_that_may_only_grow_never_falls() {
        let column = |direction| Column { name: "c".to_owned(), unit: String::new(), scale: 1.0, direction, sum: None };
        let columns = vec![column(Some(Direction::Increase)), column(Some(Direction::Decrease)), column(None)];
        let domain = domain(3, None).with_columns(columns).unwrap();
        for norm in NORMS {
            for point in [[1.0, 9.0, 1.0], [9.0, 9.0, 9.0], [1.0, 1.0, 1.0]] {
                let mut projected = point;
                norm.project(3.0, &domain, &[5.0, 5.0, 5.0], &mut projected);
                assert!(projected[0] >= 5.0 && projected[1] <= 5.0 && projected[2] != 5.0, "{norm} {projected:?}");
            }
        }
    }

    #[test]
    fn epsilon_zero_gives_the_clean_row() {
        for norm in NORMS {
            let mut point = [1.0, 9.0, 3.0];
            norm.project(0.0, &domain(3, None), &[2.0, 2.0, 2.0], &mut point);
            assert_eq!(point, [2.0, 2.0, 2.0], "{norm}");
        }
    }

    #[test]
    fn an_unlimited_ball_only_clips() {
        for norm in NORMS {
            let mut point = [-1.0, 99.0, 3.0];
            norm.project(f32::INFINITY, &domain(3, None), &[2.0, 2.0, 2.0], &mut point);
            assert_eq!(point, [0.0, 10.0, 3.0], "{norm}");
        }
    }

    proptest! {
        #[test]
        fn projections_are_inside_idempotent_and_nearest(
            clean in prop::collection::vec(0.0_f32..10.0, 5),
            point in prop::collection::vec(-20.0_f32..20.0, 5),
            rival in prop::collection::vec(0.0_f32..10.0, 5),
            epsilon in 0.0_f32..12.0,
            frozen in 0_usize..5,
        ) {
            let region = (0..5).map(|element| element != frozen).collect();
            let domain = domain(5, Some(region));
            for norm in NORMS {
                let mut projected = point.clone();
                norm.project(epsilon, &domain, &clean, &mut projected);
                let tolerance = 1e-5 * f64::from(epsilon) + 2e-6;
                prop_assert!(norm.distance(&projected, &clean) <= f64::from(epsilon) + tolerance, "{norm} {projected:?}");
                prop_assert!(projected.iter().all(|value| (0.0..=10.0).contains(value)));
                prop_assert_eq!(projected[frozen], clean[frozen]);

                let mut twice = projected.clone();
                norm.project(epsilon, &domain, &clean, &mut twice);
                prop_assert!(Norm::Linf.distance(&projected, &twice) <= 1e-5);

                // No other point of the set is nearer: try a rival that was pulled into the set along its segment.
                let mut other = rival.clone();
                other[frozen] = clean[frozen];
                let size = norm.distance(&other, &clean);
                if norm != Norm::L0 && size > f64::from(epsilon) {
                    let scale = f64::from(epsilon) / size;
                    for (value, clean) in other.iter_mut().zip(&clean) {
                        *value = (f64::from(*clean) + scale * (f64::from(*value) - f64::from(*clean))) as f32;
                    }
                } else if size > f64::from(epsilon) {
                    continue;
                }
                let nearest = Norm::L2.distance(&projected, &point);
                prop_assert!(nearest <= Norm::L2.distance(&other, &point) + 1e-3, "{norm}: {projected:?} against {other:?}");
            }
        }
    }
}
