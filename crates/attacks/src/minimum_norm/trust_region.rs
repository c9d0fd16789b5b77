//! The step of the Brendel-Bethge attack: the least change on a hyperplane, inside bounds and near the last one.

use nocebo_core::Norm;

use super::frame::size;
use super::hyperplane::towards_hyperplane;

/// Iterations of a root search.
const ROOT_STEPS: usize = 60;
/// Growths of a bracket, by a factor of 4 each.
const BRACKET_STEPS: usize = 60;
/// Relative accuracy of a root search.
const ACCURACY: f64 = 1e-7;
/// Relative accuracy of the bound on all elements.
const BOUND_ACCURACY: f64 = 1e-5;
/// Range of the multiplier μ of the trust region, relative to its natural size.
const TIES: (f64, f64) = (1e-4, 1e8);

/// Where the next change is looked for.
pub(crate) struct TrustRegion<'a> {
    /// The last change u.
    pub(crate) change: &'a [f64],
    /// Bounds of each element of a change.
    pub(crate) rooms: &'a [(f64, f64)],
    /// Normal g of the hyperplane.
    pub(crate) slopes: &'a [f64],
    /// Wanted g·(v − u).
    pub(crate) gap: f64,
    /// Greatest ‖v − u‖₂.
    pub(crate) radius: f64,
}

impl TrustRegion<'_> {
    /// The change v of least norm with `g·(v − u) = gap` and `‖v − u‖₂ ≤ radius` inside the rooms; where there is none,
    /// the one that comes nearest to the hyperplane.
    ///
    /// With multipliers λ of the hyperplane and μ of the region each element minimises
    /// `φ(v) + μ/2·(v − u)² − λ·g·v`; `g·v` grows with λ and `‖v − u‖` falls with μ, so both are found by root searches.
    /// For Linf the same holds of the least bound t on all elements in place of μ. L0 is not convex: there as many
    /// elements of least |g·u| as the region allows go to 0, or else a weighted L1 step is taken, which shrinks them.
    pub(crate) fn least_change(&self, norm: Norm) -> Vec<f64> {
        let shortest = towards_hyperplane(Norm::L2, self.slopes, self.gap, &self.rooms_here());
        let met = dot(self.slopes, &shortest);
        if size(Norm::L2, &shortest) > self.radius || (met - self.gap).abs() > ACCURACY * self.gap.abs() {
            return self.farthest();
        }
        match norm {
            Norm::L0 => self.fewest().unwrap_or_else(|| self.least_penalty(Some(&self.ranked_weights()))),
            Norm::L1 => self.least_penalty(Some(&vec![1.0; self.change.len()])),
            Norm::L2 => self.least_penalty(None),
            Norm::Linf => self.least_bound(),
        }
    }

    /// As many elements at 0 as the region allows, the least |g·u| first, while the other changed elements meet the
    /// hyperplane; `None` when not even one is allowed.
    fn fewest(&self) -> Option<Vec<f64>> {
        let mut changed = self.by_worth();
        changed.retain(|&element| self.change[element] != 0.0);
        let without = |count: usize| {
            let (dropped, kept) = changed.split_at(count);
            let mut found = self.change.to_vec();
            let mut rooms = vec![(0.0, 0.0); found.len()];
            let mut gap = self.gap;
            for &element in dropped {
                gap += self.slopes[element] * found[element];
                found[element] = 0.0;
            }
            for &element in kept {
                rooms[element] = (self.rooms[element].0 - found[element], self.rooms[element].1 - found[element]);
            }
            let step = towards_hyperplane(Norm::L2, self.slopes, gap, &rooms);
            let met = (dot(self.slopes, &step) - gap).abs() <= ACCURACY * self.gap.abs();
            for (part, step) in found.iter_mut().zip(step) {
                *part += step;
            }
            (met && self.moved_by(&found) <= self.radius).then_some(found)
        };
        let (mut allowed, mut refused) = (0, changed.len() + 1);
        let mut best = None;
        while refused - allowed > 1 {
            let middle = allowed.midpoint(refused);
            match without(middle) {
                Some(found) => (allowed, best) = (middle, Some(found)),
                None => refused = middle,
            }
        }
        best
    }

    /// All elements, those of least |g·u| first.
    fn by_worth(&self) -> Vec<usize> {
        let worth = |element: usize| (self.slopes[element] * self.change[element]).abs();
        let mut elements: Vec<usize> = (0..self.change.len()).collect();
        elements.sort_by(|&a, &b| worth(a).total_cmp(&worth(b)).then(a.cmp(&b)));
        elements
    }

    /// Weights of the magnitudes from 2 for the least |g·u| to 1 for the greatest: what matters less shrinks more, even
    /// among elements between which L1 has no preference.
    fn ranked_weights(&self) -> Vec<f64> {
        let mut weights = vec![1.0; self.change.len()];
        for (rank, element) in self.by_worth().into_iter().enumerate() {
            weights[element] += 1.0 - rank as f64 / self.change.len() as f64;
        }
        weights
    }

    fn rooms_here(&self) -> Vec<(f64, f64)> {
        self.rooms.iter().zip(self.change).map(|((low, high), change)| (low - change, high - change)).collect()
    }

    /// As far towards the hyperplane as region and rooms allow.
    fn farthest(&self) -> Vec<f64> {
        let direction = self.gap.signum();
        let moved =
            |length: f64| self.clipped(|element| self.change[element] + direction * length * self.slopes[element]);
        let steepest = size(Norm::L2, self.slopes);
        if steepest == 0.0 {
            return self.change.to_vec();
        }
        let length = least_root(|length| self.moved_by(&moved(length)), self.radius, self.radius / steepest);
        moved(length)
    }

    /// The least ½‖v‖₂², or the least weighted sum of magnitudes.
    fn least_penalty(&self, weights: Option<&[f64]>) -> Vec<f64> {
        let natural = if weights.is_some() { 1.0 / self.radius } else { 1.0 };
        // argmin_v φ(v) + tie/2·(v − u)² − push·g·v
        let element = |element: usize, push: f64, tie: f64| {
            let pushed = push * self.slopes[element];
            match weights {
                None => (tie * self.change[element] + pushed) / (1.0 + tie),
                Some(weights) => {
                    let free = self.change[element] + pushed / tie;
                    free.signum() * (free.abs() - weights[element] / tie).max(0.0)
                }
            }
        };
        let solve = |tie: f64| self.on_hyperplane(|index, push| element(index, push, tie));
        let (mut loose, mut tight) = ((TIES.0 * natural).ln(), (TIES.1 * natural).ln());
        let mut best = solve(loose.exp());
        if self.moved_by(&best) <= self.radius {
            return best;
        }
        best = solve(tight.exp());
        while tight - loose > 1e-3 {
            let middle = 0.5 * (loose + tight);
            let candidate = solve(middle.exp());
            if self.moved_by(&candidate) <= self.radius {
                (tight, best) = (middle, candidate);
            } else {
                loose = middle;
            }
        }
        best
    }

    /// The least bound t on all magnitudes for which hyperplane and region can still be met.
    fn least_bound(&self) -> Vec<f64> {
        let solve = |bound: f64| {
            let room = |element: usize| {
                let (low, high) = self.rooms[element];
                (low.max(-bound), high.min(bound))
            };
            let found = self.on_hyperplane(|element, push| {
                let (low, high) = room(element);
                (self.change[element] + push * self.slopes[element]).clamp(low, high)
            });
            let met = (dot(self.slopes, &found) - self.target()).abs() <= 1e-5 * (self.gap.abs() + self.target().abs());
            (met && self.moved_by(&found) <= self.radius).then_some(found)
        };
        let (mut low, mut high) = (0.0, size(Norm::Linf, self.change) + self.radius);
        let Some(mut best) = solve(high) else { return self.farthest() };
        while high - low > BOUND_ACCURACY * high {
            let middle = 0.5 * (low + high);
            match solve(middle) {
                Some(found) => (high, best) = (middle, found),
                None => low = middle,
            }
        }
        best
    }

    fn target(&self) -> f64 {
        self.gap + dot(self.slopes, self.change)
    }

    /// The elements at the push λ with which they meet the hyperplane from its far side.
    fn on_hyperplane(&self, element: impl Fn(usize, f64) -> f64) -> Vec<f64> {
        let at = |push: f64| self.clipped(|index| element(index, push));
        let squared = dot(self.slopes, self.slopes).max(f64::MIN_POSITIVE);
        let start = dot(self.slopes, &at(0.0));
        let target = self.target();
        let sign = if start <= target { 1.0 } else { -1.0 };
        let unit = (target - start).abs() / squared;
        let push = sign * least_root(|push| sign * dot(self.slopes, &at(sign * push)), sign * target, unit);
        at(push)
    }

    fn clipped(&self, element: impl Fn(usize) -> f64) -> Vec<f64> {
        self.rooms.iter().enumerate().map(|(index, (low, high))| element(index).clamp(*low, *high)).collect()
    }

    fn moved_by(&self, change: &[f64]) -> f64 {
        let moved: Vec<f64> = change.iter().zip(self.change).map(|(new, old)| new - old).collect();
        size(Norm::L2, &moved)
    }
}

/// A point at least 0 where a growing function is about `target`, from its far side where it jumps; where it never gets
/// there, a point as far as it grows. `unit` is a first guess.
fn least_root(function: impl Fn(f64) -> f64, target: f64, unit: f64) -> f64 {
    let mut low = (0.0, function(0.0) - target);
    if low.1 >= 0.0 || unit <= 0.0 || !unit.is_finite() {
        return 0.0;
    }
    let mut high = (unit, function(unit) - target);
    for _ in 0..BRACKET_STEPS {
        if high.1 >= 0.0 {
            break;
        }
        low = high;
        high.0 *= 4.0;
        high.1 = function(high.0) - target;
    }
    // Regula falsi, with a bisection whenever it does not halve the bracket.
    let accuracy = ACCURACY * target.abs().max(f64::MIN_POSITIVE);
    for _ in 0..ROOT_STEPS {
        if high.1 <= accuracy || high.0 - low.0 <= f64::EPSILON * high.0 {
            break;
        }
        let width = high.0 - low.0;
        for guess in [low.0 - low.1 * width / (high.1 - low.1), 0.5 * (low.0 + high.0)] {
            if guess > low.0 && guess < high.0 && high.0 - low.0 > 0.5 * width {
                let value = function(guess) - target;
                if value >= 0.0 { high = (guess, value) } else { low = (guess, value) }
            }
        }
    }
    high.0
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::Seed;
    use rand::RngExt;

    #[test]
    fn roots_are_met_from_the_far_side() {
        assert!((least_root(|x| x * x * x, 27.0, 0.1) - 3.0).abs() < 1e-6);
        let step = least_root(|x| if x < 2.0 { 0.0 } else { 5.0 }, 3.0, 1.0);
        assert!((2.0..2.0001).contains(&step), "{step}");
        assert_eq!(least_root(|x| x + 4.0, 3.0, 1.0), 0.0);
    }

    #[test]
    fn a_wide_region_gives_the_least_change_of_the_hyperplane() {
        let rooms = [(-10.0, 10.0), (-1.0, 1.0)];
        let (change, slopes) = ([5.0, 1.0], [3.0, -4.0]);
        for norm in [Norm::L1, Norm::L2, Norm::Linf] {
            // g·v = 20 in all: from the clean sample this is the exact projection.
            let region = TrustRegion { change: &change, rooms: &rooms, slopes: &slopes, gap: 9.0, radius: 100.0 };
            let found = region.least_change(norm);
            let exact = towards_hyperplane(norm, &slopes, 20.0, &rooms);
            let close = found.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 2e-3);
            assert!(close, "{norm}: {found:?} {exact:?}");
        }
        let region = TrustRegion { change: &change, rooms: &rooms, slopes: &slopes, gap: 9.0, radius: 100.0 };
        assert_eq!(region.least_change(Norm::L0).iter().filter(|part| **part != 0.0).count(), 1);
    }

    #[test]
    fn a_hyperplane_out_of_reach_is_approached_as_far_as_the_region() {
        let rooms = [(-10.0, 10.0), (-10.0, 10.0)];
        let region = TrustRegion { change: &[1.0, 1.0], rooms: &rooms, slopes: &[3.0, -4.0], gap: -100.0, radius: 5.0 };
        for norm in [Norm::L0, Norm::L1, Norm::L2, Norm::Linf] {
            let found = region.least_change(norm);
            assert!((found[0] + 2.0).abs() < 1e-5 && (found[1] - 5.0).abs() < 1e-5, "{norm} {found:?}");
        }
    }

    #[test]
    fn no_random_point_of_the_region_is_better() {
        let mut generator = Seed(5).for_sample(1);
        let mut draw = |low: f64, high: f64| generator.random_range(low..high);
        for _ in 0..60 {
            let slopes: Vec<f64> = (0..4).map(|_| draw(-2.0, 2.0)).collect();
            let rooms = [(-1.0, 1.0); 4];
            let change: Vec<f64> = (0..4).map(|_| draw(-1.0, 1.0)).collect();
            let rival: Vec<f64> = change.iter().map(|part| (part + draw(-0.3, 0.3)).clamp(-1.0, 1.0)).collect();
            let moved: Vec<f64> = rival.iter().zip(&change).map(|(a, b)| a - b).collect();
            let gap = dot(&slopes, &moved);
            let region = TrustRegion { change: &change, rooms: &rooms, slopes: &slopes, gap, radius: 0.3 };
            if size(Norm::L2, &moved) > region.radius {
                continue;
            }
            for norm in [Norm::L1, Norm::L2, Norm::Linf] {
                let found = region.least_change(norm);
                let step: Vec<f64> = found.iter().zip(&change).map(|(a, b)| a - b).collect();
                assert!((dot(&slopes, &step) - gap).abs() < 1e-3, "{norm} {} {gap}", dot(&slopes, &step));
                assert!(size(Norm::L2, &step) <= region.radius * 1.0001, "{norm}");
                assert!(size(norm, &found) <= size(norm, &rival) + 2e-3, "{norm} {found:?} {rival:?}");
            }
        }
    }
}
