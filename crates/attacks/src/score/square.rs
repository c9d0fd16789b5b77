//! Square Attack: random search over localised squares, in Linf, L2 and L1.
//!
//! ```text
//! Linf  start   x ± ε, one random sign for each channel and column (stripes)
//!       step i  a random square of side h in every channel at random gets ±2ε on the best point; then Π
//! L2    start   a tile pattern η of norm ε
//!       step i  η + old change, in a square W₁, takes over the budget of W₁ and of a second square W₂ (set to 0)
//!               and what of ε is unused: ‖new‖² = ‖δ on W₁ ∪ W₂‖² + (ε² − ‖δ‖²)/channels, in each channel
//! L1    as L2 with sums of magnitudes
//! keep the point if the objective grows
//!
//! side of the square: p_i of the area; p_i falls with the proposal i (not rescaled to the budget):
//! i ≤ 10  p    ≤ 50 p/2    ≤ 200 p/4    ≤ 500 p/8    ≤ 1000 p/16    ≤ 2000 p/32    ≤ 4000 p/64    ≤ 6000 p/128
//! ≤ 8000  p/256    later p/512
//! ```
//!
//! Source: Andriushchenko et al., ECCV 2020, arXiv:1912.00049, algorithms 1 to 3. L1: Croce & Hein 2021,
//! arXiv:2103.01208. Schedule and η as in the Square of AutoAttack.
//!
//! Differs from the source: squares, signs and patterns are drawn for each sample, so a result never depends on the
//! batch; any aspect ratio (a square is cut to the shorter side, its position is uniform up to the last row and column);
//! one box in 1-D and 3-D, with stripes along all sides but the last; in a table a random choice of features, each with
//! its own sign in Linf; squares lie in the smallest box that holds the region of interest; a Linf proposal that changes
//! nothing is drawn again, as in the authors' first program, at most 20 times; the change is projected onto
//! ball ∩ bounds (the source clips).

use rand::{Rng, RngExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation, ThreatModel,
};

use super::grid::{Grid, coordinates};
use super::questions::{Questions, along, generators, length, radius};

/// Settings of [`Square`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SquareConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Area of the first squares as a fraction of the image; above 0, at most 1.
    pub initial_fraction: f64,
    /// Queries a sample, besides the one that looks at the clean sample; at least 1.
    pub queries: u32,
    /// Whether the schedule is stretched so that `queries` counts as 10,000 proposals.
    pub rescale_schedule: bool,
}

impl Default for SquareConfig {
    /// The values of AutoAttack.
    fn default() -> Self {
        Self { loss: Loss::Margin, initial_fraction: 0.8, queries: 5000, rescale_schedule: false }
    }
}

/// Square Attack; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "SquareConfig")]
pub struct Square(SquareConfig);

impl TryFrom<SquareConfig> for Square {
    type Error = Error;

    fn try_from(config: SquareConfig) -> Result<Self, Error> {
        if !(config.initial_fraction > 0.0 && config.initial_fraction <= 1.0) {
            return Err(Error::invalid("initial_fraction", "above 0 and at most 1", config.initial_fraction));
        }
        if config.queries == 0 {
            return Err(Error::invalid("queries", "at least 1", config.queries));
        }
        Ok(Self(config))
    }
}

impl Square {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "square",
        title: "Square Attack",
        source: "Andriushchenko et al. 2020, arXiv:1912.00049",
        family: "score",
        norms: &[Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Scores,
        cost: "at most queries queries",
        minimum_norm: false,
    };

    /// Fraction of the area that the square of a proposal covers; proposals count from 0.
    fn fraction(&self, proposal: u32) -> f64 {
        const STAIRS: [(u32, f64); 9] = [
            (10, 1.0),
            (50, 2.0),
            (200, 4.0),
            (500, 8.0),
            (1000, 16.0),
            (2000, 32.0),
            (4000, 64.0),
            (6000, 128.0),
            (8000, 256.0),
        ];
        let at = if self.0.rescale_schedule {
            (f64::from(proposal) / f64::from(self.0.queries) * 10_000.0) as u32
        } else {
            proposal
        };
        let divisor = STAIRS.iter().find(|(last, _)| at <= *last).map_or(512.0, |(_, divisor)| *divisor);
        self.0.initial_fraction / divisor
    }
}

impl Attack for Square {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs at most `queries` queries a sample; a sample stops at the first point that reaches the goal.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let threat = problem.threat;
        let grid = Grid::new(threat.domain());
        let mut questions = Questions::scored(problem, self.0.queries, self.0.loss)?;
        let mut generators = generators(problem);
        let mut best = problem.inputs.clone();
        let mut value = vec![f32::NEG_INFINITY; best.len()];
        for query in 0..self.0.queries {
            let rows = questions.searching();
            if rows.is_empty() {
                break;
            }
            let fraction = self.fraction(query.saturating_sub(1));
            let proposals = rows.into_iter().map(|row| {
                let (clean, generator) = (problem.inputs.row(row), &mut generators[row]);
                let point = match (threat.norm(), query) {
                    (Norm::Linf, 0) => stripes(&grid, threat, clean, generator),
                    (Norm::Linf, _) => squares(&grid, threat, clean, best.row(row), fraction, generator),
                    (_, 0) => tiles(&grid, threat, clean, generator),
                    _ => trade(&grid, threat, clean, best.row(row), fraction, generator),
                };
                (row, point, ())
            });
            let proposals: Vec<_> = proposals.collect();
            questions.stream(proposals, |row, (), reply| {
                if let Some(reply) = reply
                    && reply.value > value[row]
                {
                    value[row] = reply.value;
                    best.row_mut(row).copy_from_slice(reply.point);
                }
            })?;
        }
        Ok(questions.finish(&best))
    }
}

fn sign(generator: &mut impl Rng) -> f64 {
    if generator.random::<bool>() { 1.0 } else { -1.0 }
}

/// The first point in Linf: one sign for each channel and place along the last side.
fn stripes(grid: &Grid, threat: &ThreatModel, clean: &[f32], generator: &mut impl Rng) -> Vec<f32> {
    let columns = grid.sides().last().copied().unwrap_or(1);
    let mut point = clean.to_vec();
    for channel in 0..grid.channels() {
        let signs: Vec<f64> = (0..columns).map(|_| sign(generator)).collect();
        for position in 0..grid.positions() {
            point[grid.element(channel, position)] += (signs[position % columns] * f64::from(threat.epsilon())) as f32;
        }
    }
    threat.project_row(clean, &mut point);
    point
}

/// A proposal in Linf.
fn squares(
    grid: &Grid,
    threat: &ThreatModel,
    clean: &[f32],
    best: &[f32],
    fraction: f64,
    generator: &mut impl Rng,
) -> Vec<f32> {
    const REDRAWS: usize = 20;
    let mut point = best.to_vec();
    for _ in 0..=REDRAWS {
        let (_, window) = grid.window(grid.side_of(fraction), generator);
        for channel in 0..grid.channels() {
            let mut direction = sign(generator);
            for element in grid.elements(channel, &window) {
                point[element] += (2.0 * direction * f64::from(threat.epsilon())) as f32;
                if grid.is_table() {
                    direction = sign(generator);
                }
            }
        }
        threat.project_row(clean, &mut point);
        if point != best {
            break;
        }
    }
    point
}

/// The first point in L2 and L1: a pattern on every fifth of every side.
fn tiles(grid: &Grid, threat: &ThreatModel, clean: &[f32], generator: &mut impl Rng) -> Vec<f32> {
    const PARTS: usize = 5;
    let mut change = vec![0.0; clean.len()];
    let (sides, tiles) = grid.tiles(PARTS);
    for tile in tiles {
        let pattern = pattern(&sides, threat.norm(), generator);
        for channel in 0..grid.channels() {
            let direction = sign(generator);
            for (element, height) in grid.elements(channel, &tile).into_iter().zip(&pattern) {
                change[element] = direction * height;
            }
        }
    }
    filled(threat, clean, &change)
}

/// A proposal in L2 and L1: the budget of two windows and the unused rest move to the first window.
fn trade(
    grid: &Grid,
    threat: &ThreatModel,
    clean: &[f32],
    best: &[f32],
    fraction: f64,
    generator: &mut impl Rng,
) -> Vec<f32> {
    let norm = threat.norm();
    // Powers add over disjoint elements: squares in L2, magnitudes in L1.
    let power = |length: f64| if norm == Norm::L2 { length * length } else { length };
    let old: Vec<f64> = best.iter().zip(clean).map(|(best, clean)| f64::from(*best) - f64::from(*clean)).collect();
    let mut change = old.clone();
    let side = grid.side_of(fraction).max(3) | 1;
    let (sides, first) = grid.window(side, generator);
    let (_, second) = grid.window(side, generator);
    let unused = (power(radius(threat)) - power(length(norm, &old))).max(0.0) / grid.channels() as f64;
    let pattern = pattern(&sides, norm, generator);
    for channel in 0..grid.channels() {
        let (first, second) = (grid.elements(channel, &first), grid.elements(channel, &second));
        let at =
            |elements: &[usize], values: &[f64]| elements.iter().map(|&element| values[element]).collect::<Vec<_>>();
        let freed = power(length(norm, &at(&second, &old)));
        for &element in &second {
            change[element] = 0.0;
        }
        // What the first window holds outside the second.
        let kept = power(length(norm, &at(&first, &change)));
        let budget = unused + freed + kept;
        let budget = if norm == Norm::L2 { budget.sqrt() } else { budget };
        let window = at(&first, &old);
        let size = length(norm, &window) + 1e-12;
        let direction = sign(generator);
        let new: Vec<f64> = window.iter().zip(&pattern).map(|(old, height)| direction * height + old / size).collect();
        let size = length(norm, &new) + 1e-12;
        for (element, new) in first.into_iter().zip(new) {
            change[element] = new / size * budget;
        }
    }
    filled(threat, clean, &change)
}

/// `clean` with this change scaled to the whole budget, inside ball and bounds.
fn filled(threat: &ThreatModel, clean: &[f32], change: &[f64]) -> Vec<f32> {
    let size = length(threat.norm(), change);
    let mut point = if size > 0.0 { along(clean, radius(threat) / size, change) } else { clean.to_vec() };
    threat.project_row(clean, &mut point);
    point
}

/// η: a hill on the first half of the window along a random side, a hollow on the second; of length 1.
fn pattern(sides: &[usize], norm: Norm, generator: &mut impl Rng) -> Vec<f64> {
    let axis = generator.random_range(0..sides.len());
    let half = sides[axis] / 2;
    let part = |size: usize| sides.iter().enumerate().map(|(at, side)| if at == axis { size } else { *side }).collect();
    let (low, high): (Vec<usize>, Vec<usize>) = (part(half), part(sides[axis] - half));
    let (hill, hollow) = (hill(&low, norm), hill(&high, norm));
    let mut heights = Vec::with_capacity(sides.iter().product());
    let (mut hill, mut hollow) = (hill.into_iter(), hollow.into_iter());
    for at in 0..sides.iter().product() {
        let on_hill = coordinates(at, sides)[axis] < half;
        heights.push(if on_hill { hill.next().unwrap_or(0.0) } else { -hollow.next().unwrap_or(0.0) });
    }
    let size = length(norm, &heights);
    heights.iter().map(|height| height / size).collect()
}

/// Nested boxes around the centre: Σ over the boxes k = 0, 1, … that hold the place of 1/(k+1)²; of length 1.
fn hill(sides: &[usize], norm: Norm) -> Vec<f64> {
    let boxes = sides.iter().map(|side| side / 2 + 1).max().unwrap_or(1);
    let heights: Vec<f64> = (0..sides.iter().product())
        .map(|at| {
            let ring = coordinates(at, sides).iter().zip(sides).map(|(at, side)| at.abs_diff(side / 2)).max();
            (ring.unwrap_or(0)..boxes).map(|k| 1.0 / ((k + 1) as f64).powi(2)).sum()
        })
        .collect();
    let size = length(norm, &heights);
    heights.iter().map(|height| height / size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Samples, Seed};
    use nocebo_testkit::models::Constant;
    use nocebo_testkit::suite::{self, InNorm, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = Square::try_from(SquareConfig { queries: 500, ..SquareConfig::default() }).unwrap();
        let linf = InNorm(&attack, &[Norm::Linf]);
        assert_eq!(suite::check(&linf, Strength { linear: 1.02, goals: true }), Ok(()));
        // Windows of 3 by 3, the least of the source, are nearly as large as the images of the suite.
        let others = InNorm(&attack, &[Norm::L1, Norm::L2]);
        assert_eq!(suite::check(&others, Strength { linear: 3.0, goals: true }), Ok(()));
    }

    #[test]
    fn the_schedule_of_the_reference() {
        let attack = Square::try_from(SquareConfig::default()).unwrap();
        let reference = |at: u32| match at {
            0..=10 => 0.8,
            11..=50 => 0.4,
            51..=200 => 0.2,
            201..=500 => 0.1,
            501..=1000 => 0.05,
            1001..=2000 => 0.025,
            2001..=4000 => 0.0125,
            4001..=6000 => 0.00625,
            6001..=8000 => 0.003125,
            _ => 0.0015625,
        };
        for at in 0..12_000 {
            assert_eq!(attack.fraction(at), reference(at), "{at}");
        }
        let config = SquareConfig { rescale_schedule: true, ..SquareConfig::default() };
        let rescaled = Square::try_from(config).unwrap();
        assert_eq!([5, 6, 4000, 4001].map(|at| rescaled.fraction(at)), [0.8, 0.4, 0.003125, 0.0015625]);
        assert_eq!((attack.0.queries, attack.0.loss), (5000, Loss::Margin));
    }

    #[test]
    fn sides_of_the_squares_of_a_28_by_28_image() {
        let grid = Grid::new(&Domain::grey_levels(&[3, 28, 28], 255.0).unwrap());
        let attack = Square::try_from(SquareConfig::default()).unwrap();
        let sides = [0, 11, 51, 201, 501, 1001, 2001, 4001].map(|at| grid.side_of(attack.fraction(at)));
        // √(p·784), rounded.
        assert_eq!(sides, [25, 18, 13, 9, 6, 4, 3, 2]);
    }

    #[test]
    fn a_linf_proposal_changes_one_square_by_whole_steps() {
        for shape in [vec![2, 5, 9], vec![2, 30], vec![1, 4, 5, 6], vec![12]] {
            let domain = Domain::grey_levels(&shape, 255.0).unwrap();
            let grid = Grid::new(&domain);
            let threat = ThreatModel::new(Norm::Linf, 3.0, domain).unwrap();
            let clean = vec![100.0; shape.iter().product()];
            let mut generator = Seed(4).for_sample(1);
            let start = stripes(&grid, &threat, &clean, &mut generator);
            assert!(start.iter().all(|value| (value - 100.0).abs() == 3.0));
            for _ in 0..20 {
                let side = grid.side_of(0.2);
                let point = squares(&grid, &threat, &clean, &start, 0.2, &mut generator);
                let changed: Vec<usize> = (0..point.len()).filter(|&at| point[at] != start[at]).collect();
                assert!(!changed.is_empty() && changed.len() <= shape[0] * side.pow(grid.sides().len() as u32));
                assert!(changed.iter().all(|&at| (point[at] - start[at]).abs() == 6.0), "{shape:?} {point:?}");
            }
        }
    }

    #[test]
    fn patterns_have_length_1_and_two_signs() {
        let mut generator = Seed(4).for_sample(1);
        for sides in [vec![3], vec![4, 4], vec![5, 5], vec![3, 4, 5], vec![1, 6]] {
            for norm in [Norm::L1, Norm::L2] {
                let heights = pattern(&sides, norm, &mut generator);
                assert!((length(norm, &heights) - 1.0).abs() < 1e-12);
                assert!(sides.contains(&1) || heights.iter().any(|h| *h > 0.0) && heights.iter().any(|h| *h < 0.0));
            }
        }
        // Boxes of side 1 and 3 around the centre of 3: 1 + 1/4 there, 1/4 beside; 4/27 and so on after scaling.
        let hill = hill(&[3], Norm::L1);
        let sum = 1.25 + 0.25 + 0.25;
        assert!(hill.iter().zip([0.25, 1.25, 0.25]).all(|(a, b)| (a - b / sum).abs() < 1e-12), "{hill:?}");
    }

    #[test]
    fn l2_and_l1_points_keep_the_whole_budget() {
        for norm in [Norm::L1, Norm::L2] {
            for shape in [vec![2, 7, 9], vec![1, 30], vec![12]] {
                let domain = Domain::grey_levels(&shape, 255.0).unwrap();
                let grid = Grid::new(&domain);
                let threat = ThreatModel::new(norm, 30.0, domain).unwrap();
                let clean = vec![100.0; shape.iter().product()];
                let mut generator = Seed(4).for_sample(1);
                let mut point = tiles(&grid, &threat, &clean, &mut generator);
                for _ in 0..10 {
                    assert!((norm.distance(&clean, &point) - 30.0).abs() < 1e-3, "{norm} {shape:?}");
                    point = trade(&grid, &threat, &clean, &point, 0.1, &mut generator);
                }
            }
        }
    }

    #[test]
    fn spends_its_budget_and_never_more() {
        let domain = Domain::grey_levels(&[1, 3, 7], 255.0).unwrap();
        let model = Constant::new(domain.clone(), vec![1.0, 0.0]);
        let samples = Samples::new(vec![9.0; 42], &[1, 3, 7]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 4.0, domain).unwrap();
        let attack = Square::try_from(SquareConfig { queries: 60, ..SquareConfig::default() }).unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.queries.iter().all(|spent| (spent.forward, spent.backward) == (61, 0)));
        let outcome = attack.run(&model, &samples, &goal, &threat.with_query_limit(23), Seed(1)).unwrap();
        assert!(outcome.queries.iter().all(|spent| spent.forward == 23));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        assert!(toml::from_str::<Square>("query = 3").is_err());
        assert!(toml::from_str::<Square>("initial_fraction = nan").is_err());
        let error = toml::from_str::<Square>("queries = 0").unwrap_err();
        assert!(error.message().contains("`queries` must be at least 1, got 0"), "{error}");
    }
}
