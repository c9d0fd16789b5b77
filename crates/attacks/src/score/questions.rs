//! The model as a query attack asks it: many samples and several points a sample in one call, inside the budget, with
//! the best point kept.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;

use nocebo_core::{
    AttackProblem, Domain, Error, GoalObjective, Loss, Norm, Objective, Perturbation, Samples, ThreatModel,
};

/// Values that go to the model in one call: 16 MiB. Points beyond it wait for the next call.
const CALL: usize = 1 << 22;

/// What the model answers about one point.
pub(crate) struct Reply<'p> {
    /// The point that was asked about: the requested one inside the bounds, unchanged outside the region.
    pub(crate) point: &'p [f32],
    /// Whether it reaches the goal.
    pub(crate) reached: bool,
    /// Objective of a score attack; 0 for a decision attack, which cannot see it.
    pub(crate) value: f32,
}

/// Asks about points of the samples of a problem and keeps, for each sample, the reached point of least norm.
///
/// Every point is clipped to the bounds, and restored outside the region of interest, before it is asked about.
/// A request that neither the attack's own budget nor the query limit of the threat model can pay is not made.
pub(crate) struct Questions<'a> {
    problem: &'a AttackProblem<'a>,
    objective: Option<GoalObjective<'a>>,
    left: Vec<u32>,
    found: Samples,
    distance: Vec<f64>,
    success: Vec<bool>,
}

impl<'a> Questions<'a> {
    /// Decisions only, at most `queries` a sample.
    pub(crate) fn new(problem: &'a AttackProblem<'a>, queries: u32) -> Self {
        let domain = problem.threat.domain();
        // Where nothing may change there is nothing to ask.
        let budget = if (0..domain.elements()).any(|element| domain.is_mutable(element)) { queries } else { 0 };
        let batch = problem.inputs.len();
        Self {
            problem,
            objective: None,
            left: vec![budget; batch],
            found: problem.inputs.clone(),
            distance: vec![f64::INFINITY; batch],
            success: vec![false; batch],
        }
    }

    /// Decisions and the objective that the goal and `loss` make, at most `queries` a sample.
    pub(crate) fn scored(problem: &'a AttackProblem<'a>, queries: u32, loss: Loss) -> Result<Self, Error> {
        Ok(Self { objective: Some(problem.objective(problem.goal, loss)?), ..Self::new(problem, queries) })
    }

    /// Queries that may still be asked about a row.
    pub(crate) fn left(&self, row: usize) -> u32 {
        self.left[row].min(self.problem.oracle.remaining(self.problem.inputs.indices()[row]))
    }

    /// Rows with queries left.
    pub(crate) fn askable(&self) -> Vec<usize> {
        (0..self.left.len()).filter(|&row| self.left(row) > 0).collect()
    }

    /// Rows with queries left whose goal has not been reached within epsilon.
    pub(crate) fn searching(&self) -> Vec<usize> {
        (0..self.left.len()).filter(|&row| !self.success[row] && self.left(row) > 0).collect()
    }

    /// Asks about each requested point (row, point, tag) and hands row, tag and reply to `take`, in order; no reply
    /// where the budget is spent. Requests are drawn as they are needed, so their number may be large.
    pub(crate) fn stream<T>(
        &mut self,
        requests: impl IntoIterator<Item = (usize, Vec<f32>, T)>,
        mut take: impl FnMut(usize, T, Option<Reply<'_>>),
    ) -> Result<(), Error> {
        let inputs = self.problem.inputs;
        let domain = self.problem.threat.domain();
        let most = (CALL / inputs.elements()).max(1);
        let mut requests = requests.into_iter();
        loop {
            let mut asked: BTreeMap<u64, u32> = BTreeMap::new();
            let (mut values, mut indices, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
            for (row, mut point, tag) in requests.by_ref().take(most) {
                let sample = inputs.indices()[row];
                let pending = asked.entry(sample).or_default();
                let affordable = self.left[row] > 0 && self.problem.oracle.remaining(sample) > *pending;
                if affordable {
                    *pending += 1;
                    self.left[row] -= 1;
                    confine(domain, inputs.row(row), &mut point);
                    values.extend(point);
                    indices.push(sample);
                }
                waiting.push((row, tag, affordable));
            }
            if waiting.is_empty() {
                return Ok(());
            }
            let points = Samples::new(values, inputs.shape())?.with_indices(indices)?;
            let outputs = if points.is_empty() { None } else { Some(self.problem.oracle.outputs(&points)?) };
            let mut position = 0;
            for (row, tag, affordable) in waiting {
                let reply = match &outputs {
                    Some(outputs) if affordable => {
                        let reply = self.reply(row, points.row(position), outputs.row(position))?;
                        position += 1;
                        Some(reply)
                    }
                    _ => None,
                };
                take(row, tag, reply);
            }
        }
    }

    /// Whether each requested point (row, point) reaches the goal; `None` where the budget is spent.
    pub(crate) fn decide(
        &mut self,
        requests: impl IntoIterator<Item = (usize, Vec<f32>)>,
    ) -> Result<Vec<Option<bool>>, Error> {
        let mut decisions = Vec::new();
        self.stream(requests.into_iter().map(|(row, point)| (row, point, ())), |_, (), reply| {
            decisions.push(reply.map(|reply| reply.reached));
        })?;
        Ok(decisions)
    }

    /// `point` as it would be asked about: inside the bounds, unchanged outside the region.
    pub(crate) fn confine(&self, row: usize, point: &mut [f32]) {
        confine(self.problem.threat.domain(), self.problem.inputs.row(row), point);
    }

    fn reply<'p>(&mut self, row: usize, point: &'p [f32], logits: &[f32]) -> Result<Reply<'p>, Error> {
        let problem = self.problem;
        let value = match &self.objective {
            Some(objective) => objective.evaluate(row, logits, &mut vec![0.0; logits.len()])?,
            None => 0.0,
        };
        if !value.is_finite() {
            return Err(Error::NonFinite { what: "objective", sample: problem.inputs.indices()[row] });
        }
        let reached = problem.goal.is_reached(&problem.oracle.spec().task, row, logits);
        if reached {
            let clean = problem.inputs.row(row);
            let distance = problem.threat.norm().distance(clean, point);
            if distance < self.distance[row] {
                self.distance[row] = distance;
                self.success[row] = problem.threat.allows(clean, point);
                self.found.row_mut(row).copy_from_slice(point);
            }
        }
        Ok(Reply { point, reached, value })
    }

    /// The reached point of least norm of each sample, if it is allowed; else the clean sample.
    pub(crate) fn finish_minimum(self) -> Perturbation {
        let clean = self.problem.inputs;
        self.finish(clean)
    }

    /// The reached point of least norm of each sample, if it is allowed; else its row of `last`.
    pub(crate) fn finish(mut self, last: &Samples) -> Perturbation {
        for (row, _) in self.success.iter().enumerate().filter(|(_, success)| !**success) {
            self.found.copy_row(row, last, row);
        }
        Perturbation { inputs: self.found, success: self.success }
    }
}

/// Clips `point` to the bounds and restores it outside the region of interest.
fn confine(domain: &Domain, clean: &[f32], point: &mut [f32]) {
    for (element, value) in point.iter_mut().enumerate() {
        *value = if domain.is_mutable(element) {
            value.clamp(domain.lower()[element], domain.upper()[element])
        } else {
            clean[element]
        };
    }
}

/// One random generator for each row, from the seed and the sample's index.
pub(crate) fn generators(problem: &AttackProblem<'_>) -> Vec<ChaCha8Rng> {
    problem.inputs.indices().iter().map(|&sample| problem.seed.for_sample(sample)).collect()
}

/// Distance between the bounds of each element; 0 outside the region. Step sizes that a paper gives for values in
/// [0, 1] are multiplied by it.
pub(crate) fn ranges(domain: &Domain) -> Vec<f64> {
    (0..domain.elements())
        .map(|element| {
            let range = f64::from(domain.upper()[element]) - f64::from(domain.lower()[element]);
            if domain.is_mutable(element) { range } else { 0.0 }
        })
        .collect()
}

/// Epsilon, or the norm of the greatest change that the bounds leave where that is less.
pub(crate) fn radius(threat: &ThreatModel) -> f64 {
    let sides = ranges(threat.domain());
    let greatest = match threat.norm() {
        Norm::L0 => sides.iter().filter(|side| **side > 0.0).count() as f64,
        norm => length(norm, &sides),
    };
    greatest.min(f64::from(threat.epsilon()))
}

/// L1, L2 or Linf length of a vector (L2 for L0).
pub(crate) fn length(norm: Norm, vector: &[f64]) -> f64 {
    let sizes = vector.iter().map(|part| part.abs());
    match norm {
        Norm::L1 => sizes.sum(),
        Norm::L0 | Norm::L2 => sizes.map(|size| size * size).sum::<f64>().sqrt(),
        Norm::Linf => sizes.fold(0.0, f64::max),
    }
}

/// `start + scale·direction`.
pub(crate) fn along(start: &[f32], scale: f64, direction: &[f64]) -> Vec<f32> {
    start.iter().zip(direction).map(|(start, part)| (f64::from(*start) + scale * part) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Attack, AttackInfo, Goal, GoalKind, Knowledge, Seed};
    use nocebo_testkit::suite;

    /// Asks `per_row` questions about every row: points ever nearer to where the linear model flips.
    struct Asker {
        per_row: u32,
        budget: u32,
    }

    impl Attack for Asker {
        fn info(&self) -> AttackInfo {
            AttackInfo {
                name: "asker",
                title: "Asks",
                source: "this test",
                family: "test",
                norms: &[Norm::Linf],
                goals: GoalKind::ALL,
                knowledge: Knowledge::Scores,
                cost: "as asked",
                minimum_norm: true,
            }
        }

        fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
            let mut questions = Questions::scored(problem, self.budget, Loss::Margin)?;
            let rows = (0..problem.inputs.len()).flat_map(|row| (0..self.per_row).map(move |nth| (row, nth)));
            let toward = |row: usize, nth: u32| {
                let sign = if questions_value(problem, row) > 0.0 { -1.0 } else { 1.0 };
                let far = f64::from(self.per_row - nth) * 40.0;
                let weights = (0..12).map(|at| sign * f64::from(((at * 5 + 3) % 11) as f32 / 5.0 - 1.1));
                along(problem.inputs.row(row), far, &weights.collect::<Vec<_>>())
            };
            let mut seen = Vec::new();
            questions.stream(rows.map(|(row, nth)| (row, toward(row, nth), nth)), |row, nth, reply| {
                assert!(reply.as_ref().is_none_or(|reply| reply.reached == (reply.value > 0.0)));
                seen.push((row, nth, reply.is_some()));
            })?;
            let affordable = self.budget.min(problem.threat.query_limit().map_or(u32::MAX, |limit| limit - 1));
            let expected = (0..problem.inputs.len())
                .flat_map(|row| (0..self.per_row).map(move |nth| (row, nth, nth < affordable)));
            assert_eq!(seen, expected.collect::<Vec<_>>());
            Ok(questions.finish_minimum())
        }
    }

    fn questions_value(problem: &AttackProblem<'_>, row: usize) -> f32 {
        suite::linear_binary().logits(problem.inputs.row(row))[0]
    }

    fn ask(per_row: u32, budget: u32, limit: Option<u32>) -> nocebo_core::AttackOutcome {
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, f32::INFINITY, suite::ct_domain()).unwrap();
        let threat = if let Some(limit) = limit { threat.with_query_limit(limit) } else { threat };
        Asker { per_row, budget }.run(&model, &samples, &goal, &threat, Seed(1)).unwrap()
    }

    #[test]
    fn budget_and_limit_are_spent_exactly() {
        let spent = |outcome: &nocebo_core::AttackOutcome| outcome.queries.iter().map(|q| q.forward).max().unwrap();
        assert_eq!(spent(&ask(9, 100, None)), 10);
        assert_eq!(spent(&ask(9, 4, None)), 5);
        assert_eq!(spent(&ask(9, 4, Some(3))), 3);
        assert_eq!(spent(&ask(9, 100, Some(7))), 7);
    }

    #[test]
    fn the_nearest_reached_point_is_kept() {
        let (first, all) = (ask(9, 1, None), ask(9, 9, None));
        let samples = suite::ct_samples();
        for row in 0..samples.len() {
            let distance = |outcome: &nocebo_core::AttackOutcome| {
                Norm::Linf.distance(samples.row(row), outcome.perturbed_inputs.row(row))
            };
            assert!(first.success[row] && all.success[row]);
            assert!(distance(&all) < distance(&first), "row {row}: {} {}", distance(&all), distance(&first));
        }
    }

    #[test]
    fn the_radius_is_epsilon_or_what_the_bounds_leave() {
        let domain = nocebo_core::Domain::grey_levels(&[4], 255.0).unwrap();
        let domain = domain.with_region(vec![true, true, true, false]).unwrap();
        let radius = |norm, epsilon| radius(&ThreatModel::new(norm, epsilon, domain.clone()).unwrap());
        assert_eq!(radius(Norm::Linf, f32::INFINITY), 255.0);
        assert_eq!(radius(Norm::L1, f32::INFINITY), 765.0);
        assert_eq!(radius(Norm::L0, 7.0), 3.0);
        assert_eq!(radius(Norm::L2, 2.0), 2.0);
    }
}
