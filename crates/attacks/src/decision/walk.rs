//! What the decision attacks share: a starting point, bisection towards the decision boundary, and probes at it.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use nocebo_core::{AttackProblem, Error, Norm};

use crate::score::grid::Grid;
use crate::score::questions::{Questions, along, generators, length};

/// Points tried for a start.
const TRIES: usize = 100;

/// Halvings after which an f64 has no middle left.
pub(crate) const HALVINGS: usize = 60;

/// The walk of each row along the decision boundary: always at a point that reaches the goal.
pub(crate) struct Walk<'a> {
    problem: &'a AttackProblem<'a>,
    pub(crate) questions: Questions<'a>,
    pub(crate) generators: Vec<ChaCha8Rng>,
    /// Where each row stands; `None` where no start was found.
    points: Vec<Option<Vec<f32>>>,
}

/// What the probes around one point say.
pub(crate) struct Probes {
    /// Sum over the probes of ±displacement: plus where the goal is reached.
    pub(crate) signed: Vec<f64>,
    /// Sum over the probes of the displacement.
    pub(crate) plain: Vec<f64>,
    /// Probes that were answered.
    pub(crate) answered: usize,
    /// Probes that reach the goal.
    pub(crate) reached: usize,
}

impl<'a> Walk<'a> {
    /// Looks for the starting points, with at most `queries` a sample for the whole walk.
    pub(crate) fn start(problem: &'a AttackProblem<'a>, queries: u32) -> Result<Self, Error> {
        let mut questions = Questions::new(problem, queries);
        let mut generators = generators(problem);
        let points = starting_points(problem, &mut questions, &mut generators)?;
        Ok(Self { problem, questions, generators, points })
    }

    /// Rows that have a point and queries left.
    pub(crate) fn rows(&self) -> Vec<usize> {
        self.questions.askable().into_iter().filter(|&row| self.points[row].is_some()).collect()
    }

    /// Where a row stands: its clean point if it has no start.
    pub(crate) fn point(&self, row: usize) -> &[f32] {
        self.points[row].as_deref().unwrap_or_else(|| self.problem.inputs.row(row))
    }

    /// Distance of a row's point from the clean one, in the norm of the threat model.
    pub(crate) fn distance(&self, row: usize) -> f64 {
        self.problem.threat.norm().distance(self.problem.inputs.row(row), self.point(row))
    }

    /// Change of a row's point from the clean one.
    pub(crate) fn change(&self, row: usize) -> Vec<f64> {
        let clean = self.problem.inputs.row(row);
        self.point(row).iter().zip(clean).map(|(point, clean)| f64::from(*point) - f64::from(*clean)).collect()
    }

    /// Moves a row to a point that was seen to reach the goal.
    pub(crate) fn move_to(&mut self, row: usize, point: Vec<f32>) {
        self.points[row] = Some(point);
    }

    /// Moves rows towards their clean points as far as they stay adversarial, to within `tolerance` of the way. In L1
    /// and L2 the way is the straight line, in Linf the change is clipped ever more.
    pub(crate) fn approach(&mut self, rows: &[usize], tolerance: f64) -> Result<(), Error> {
        let problem = self.problem;
        let starts: Vec<Vec<f64>> = rows.iter().map(|&row| self.change(row)).collect();
        let place = |job: usize, fraction: f64| {
            let change = &starts[job];
            let clean = problem.inputs.row(rows[job]);
            if problem.threat.norm() == Norm::Linf {
                let most = fraction * length(Norm::Linf, change);
                along(clean, 1.0, &change.iter().map(|part| part.clamp(-most, most)).collect::<Vec<_>>())
            } else {
                along(clean, fraction, change)
            }
        };
        let jobs: Vec<_> = rows.iter().map(|&row| (row, 0.0, 1.0)).collect();
        let highs = bisect(&mut self.questions, &jobs, |_, _| tolerance, place)?;
        for (job, high) in highs.into_iter().enumerate().filter(|(_, high)| *high < 1.0) {
            let mut point = place(job, high);
            self.questions.confine(rows[job], &mut point);
            self.points[rows[job]] = Some(point);
        }
        Ok(())
    }

    /// Asks about `counts[job]` points at `scale[job]` times a random direction around each row's point.
    ///
    /// Displacements are those after clipping to the bounds, divided by the scale.
    pub(crate) fn probe(
        &mut self,
        rows: &[usize],
        counts: &[usize],
        scales: &[f64],
        mut draw: impl FnMut(&mut ChaCha8Rng) -> Vec<f64>,
    ) -> Result<Vec<Probes>, Error> {
        let elements = self.problem.inputs.elements();
        let nothing = || Probes { signed: vec![0.0; elements], plain: vec![0.0; elements], answered: 0, reached: 0 };
        let mut probes: Vec<Probes> = rows.iter().map(|_| nothing()).collect();
        let (points, generators) = (&self.points, &mut self.generators);
        let clean = self.problem.inputs;
        let at = |row: usize| points[row].as_deref().unwrap_or_else(|| clean.row(row));
        let jobs = (0..rows.len()).flat_map(|job| std::iter::repeat_n(job, counts[job]));
        let requests = jobs.map(|job| {
            let direction = draw(&mut generators[rows[job]]);
            (rows[job], along(at(rows[job]), scales[job], &direction), job)
        });
        self.questions.stream(requests, |row, job, reply| {
            let Some(reply) = reply else { return };
            let probes = &mut probes[job];
            let sign = if reply.reached { 1.0 } else { -1.0 };
            let displaced = reply.point.iter().zip(at(row));
            let sums = probes.signed.iter_mut().zip(&mut probes.plain);
            for ((signed, plain), (point, start)) in sums.zip(displaced) {
                let part = (f64::from(*point) - f64::from(*start)) / scales[job];
                *signed += sign * part;
                *plain += part;
            }
            probes.answered += 1;
            probes.reached += usize::from(reply.reached);
        })?;
        Ok(probes)
    }

    /// Least probe distance: 8 float steps an element at the greatest bound, because a probe that rounds to its centre
    /// says nothing.
    pub(crate) fn least_scale(&self) -> f64 {
        let domain = self.problem.threat.domain();
        let bounds = domain.lower().iter().chain(domain.upper());
        let greatest = bounds.map(|bound| f64::from(bound.abs())).fold(0.0, f64::max);
        8.0 * f64::from(f32::EPSILON) * greatest * (domain.elements() as f64).sqrt()
    }
}

/// A random direction over the elements with a positive range, of L2 length 1.
pub(crate) fn unit<G: Rng>(ranges: &[f64], generator: &mut G, mut part: impl FnMut(&mut G) -> f64) -> Vec<f64> {
    let direction: Vec<f64> = ranges.iter().map(|range| if *range > 0.0 { part(generator) } else { 0.0 }).collect();
    let size = length(Norm::L2, &direction).max(f64::MIN_POSITIVE);
    direction.into_iter().map(|part| part / size).collect()
}

/// One point of each row that reaches the goal, `None` where none was found; at most 100 queries a sample.
///
/// The rule, without a setting: the tries take turns between uniform noise inside the bounds, noise of ever coarser
/// cells (2, 4, 8, … a side, then one for a whole channel, then 2 again), which has the large dark and bright areas that
/// some classes need, and such noise laid over the sample by a random share, for classes that noise alone never has.
/// Everything is drawn from (seed, sample index); a sample of the wanted class is not taken from the batch, because a
/// result may not depend on it.
pub(crate) fn starting_points(
    problem: &AttackProblem<'_>,
    questions: &mut Questions<'_>,
    generators: &mut [ChaCha8Rng],
) -> Result<Vec<Option<Vec<f32>>>, Error> {
    let grid = Grid::new(problem.threat.domain());
    let mut starts = vec![None; problem.inputs.len()];
    for attempt in 0..TRIES {
        let rows: Vec<usize> = questions.askable().into_iter().filter(|&row| starts[row].is_none()).collect();
        if rows.is_empty() {
            break;
        }
        let tries: Vec<_> = rows
            .iter()
            .map(|&row| (row, noise(problem, &grid, problem.inputs.row(row), attempt, &mut generators[row])))
            .collect();
        questions.stream(tries.into_iter().map(|(row, point)| (row, point, ())), |row, (), reply| {
            if let Some(reply) = reply
                && reply.reached
            {
                starts[row] = Some(reply.point.to_vec());
            }
        })?;
    }
    Ok(starts)
}

/// Noise inside the bounds of the mutable elements: of single elements, of cells, of cells over the sample, in turn.
fn noise(
    problem: &AttackProblem<'_>,
    grid: &Grid,
    clean: &[f32],
    attempt: usize,
    generator: &mut impl Rng,
) -> Vec<f32> {
    let domain = problem.threat.domain();
    let greatest = grid.sides().iter().copied().max().unwrap_or(1);
    // 1, 2, 4, … below the greatest side.
    let scales = (greatest as f64).log2().ceil().max(1.0) as usize;
    let side = if attempt.is_multiple_of(3) { greatest } else { 1 << ((attempt / 3 + 1) % scales) };
    let share = if attempt % 3 == 2 { generator.random() } else { 1.0 };
    let coarse: Vec<usize> = grid.sides().iter().map(|&whole| whole.min(side)).collect();
    let cells = grid.cells(&coarse);
    let count: usize = coarse.iter().product();
    let mut point = clean.to_vec();
    for channel in 0..grid.channels() {
        let heights: Vec<f64> = (0..count).map(|_| generator.random()).collect();
        for (position, &cell) in cells.iter().enumerate() {
            let element = grid.element(channel, position);
            let (lower, upper) = (f64::from(domain.lower()[element]), f64::from(domain.upper()[element]));
            let (noise, kept) = (lower + heights[cell] * (upper - lower), f64::from(clean[element]));
            point[element] = (kept + share * (noise - kept)) as f32;
        }
    }
    point
}

/// Narrows `[low, high]` for each job (row, low, high), where the point at high reaches the goal and the one at low does
/// not, until `high − low` is at most `tolerance(job, high)`. Returns each high: the last value whose point was seen to
/// reach the goal. `place(job, value)` makes the point.
pub(crate) fn bisect(
    questions: &mut Questions<'_>,
    jobs: &[(usize, f64, f64)],
    tolerance: impl Fn(usize, f64) -> f64,
    place: impl Fn(usize, f64) -> Vec<f32>,
) -> Result<Vec<f64>, Error> {
    let mut spans: Vec<(f64, f64)> = jobs.iter().map(|(_, low, high)| (*low, *high)).collect();
    for _ in 0..HALVINGS {
        let open: Vec<usize> = (0..jobs.len())
            .filter(|&job| {
                let (low, high) = spans[job];
                let middle = 0.5 * (low + high);
                high - low > tolerance(job, high) && middle > low && middle < high && questions.left(jobs[job].0) > 0
            })
            .collect();
        if open.is_empty() {
            break;
        }
        let middle = |job: usize| 0.5 * (spans[job].0 + spans[job].1);
        let asked: Vec<_> = open.iter().map(|&job| (jobs[job].0, place(job, middle(job)))).collect();
        for (&job, reached) in open.iter().zip(questions.decide(asked)?) {
            let middle = 0.5 * (spans[job].0 + spans[job].1);
            match reached {
                Some(true) => spans[job].1 = middle,
                Some(false) => spans[job].0 = middle,
                None => {}
            }
        }
    }
    Ok(spans.into_iter().map(|(_, high)| high).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{
        Attack, AttackInfo, Goal, GoalKind, Knowledge, Label, Norm, Perturbation, Samples, Seed, Task, ThreatModel,
    };
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    /// Starts, and bisects along the straight line if asked to.
    struct Walker {
        bisects: bool,
    }

    impl Attack for Walker {
        fn info(&self) -> AttackInfo {
            AttackInfo {
                name: "walker",
                title: "Walks",
                source: "this test",
                family: "test",
                norms: &[Norm::L2],
                goals: GoalKind::ALL,
                knowledge: Knowledge::Decisions,
                cost: "as asked",
                minimum_norm: true,
            }
        }

        fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
            let mut walk = Walk::start(problem, 1000)?;
            let rows = if self.bisects { walk.rows() } else { Vec::new() };
            let starts: Vec<Vec<f32>> = rows.iter().map(|&row| walk.point(row).to_vec()).collect();
            walk.approach(&rows, 1e-6)?;
            for (&row, start) in rows.iter().zip(starts) {
                // The boundary along the line, in closed form.
                let model = suite::linear_binary();
                let clean = problem.inputs.row(row);
                let (at, end) = (model.logits(clean)[0], model.logits(&start)[0]);
                let exact = f64::from(at / (at - end));
                let found = walk.distance(row) / Norm::L2.distance(clean, &start);
                assert!((found - exact).abs() < 2e-5, "{found} {exact}");
            }
            Ok(walk.questions.finish_minimum())
        }
    }

    #[test]
    fn bisection_finds_the_boundary_on_the_line() {
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, suite::ct_domain()).unwrap();
        let outcome = Walker { bisects: true }.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        assert_eq!(outcome.success, [true; 8]);
    }

    #[test]
    fn coarse_noise_finds_a_class_that_fine_noise_cannot() {
        // Class 1 needs a mean far above the middle, which 4096 independent elements never have.
        let domain = nocebo_core::Domain::grey_levels(&[1, 64, 64], 255.0).unwrap();
        let weights = vec![vec![1.0 / 4096.0; 4096]];
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, weights, vec![-180.0]);
        let samples = Samples::new(vec![20.0; 4096], &[1, 64, 64]).unwrap();
        let goal = Goal::Targeted { labels: vec![Label::Class(0)], targets: vec![Label::Class(1)] };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let outcome = Walker { bisects: false }.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.success[0]);
        let values = outcome.perturbed_inputs.row(0);
        assert!(values.iter().all(|value| (0.0..=255.0).contains(value)));
    }

    #[test]
    fn noise_over_the_sample_finds_a_class_that_noise_alone_never_has() {
        // Class 2 needs a mean above 60 and the fine pattern of the sample, which no noise has.
        let domain = nocebo_core::Domain::grey_levels(&[1, 64, 64], 255.0).unwrap();
        let sign = |element: usize| if (element + element / 64).is_multiple_of(2) { 1.0 } else { -1.0 };
        let pattern: Vec<f32> = (0..4096).map(|element| -sign(element) / 4096.0).collect();
        let weights = vec![pattern, vec![-1.0 / 4096.0; 4096], vec![0.0; 4096]];
        let model = Linear::new(domain.clone(), Task::MultiClass { classes: 3 }, weights, vec![20.0, 60.0, 0.0]);
        let samples =
            Samples::new((0..4096).map(|element| 55.0 + 50.0 * sign(element)).collect(), &[1, 64, 64]).unwrap();
        let goal = Goal::Targeted { labels: vec![Label::Class(1)], targets: vec![Label::Class(2)] };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let outcome = Walker { bisects: false }.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.success[0]);
    }
}
