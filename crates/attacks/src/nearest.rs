//! The nearest point that reaches the goal, for attacks that search for the least change.

use nocebo_core::{AttackProblem, Outputs, Perturbation, Samples};

/// Keeps, for each sample of a problem, the point of least norm that was seen to reach the goal.
pub(crate) struct Nearest<'a> {
    problem: &'a AttackProblem<'a>,
    points: Samples,
    distances: Vec<f64>,
}

impl<'a> Nearest<'a> {
    /// Nothing found yet.
    pub(crate) fn new(problem: &'a AttackProblem<'a>) -> Self {
        Self { problem, points: problem.inputs.clone(), distances: vec![f64::INFINITY; problem.inputs.len()] }
    }

    /// Keeps `point`, which reaches the goal of sample `row`, if it is nearer than all before.
    pub(crate) fn offer(&mut self, row: usize, point: &[f32]) {
        self.offer_by(row, point, self.problem.threat.norm().distance(self.problem.inputs.row(row), point));
    }

    /// [`Nearest::offer`] for an attack that looks for the least of another distance than the norm's.
    pub(crate) fn offer_by(&mut self, row: usize, point: &[f32], distance: f64) {
        if distance < self.distances[row] {
            self.distances[row] = distance;
            self.points.row_mut(row).copy_from_slice(point);
        }
    }

    /// Distance of the nearest point of a sample; infinity when none was found.
    pub(crate) fn distance(&self, row: usize) -> f64 {
        self.distances[row]
    }

    /// Looks at `points` of the given rows: those whose outputs reach the goal are offered. Returns the positions of
    /// the others.
    pub(crate) fn offer_reached(&mut self, rows: &[usize], points: &Samples, outputs: &Outputs) -> Vec<usize> {
        let task = &self.problem.oracle.spec().task;
        let mut missed = Vec::with_capacity(rows.len());
        for (position, &row) in rows.iter().enumerate() {
            if self.problem.goal.is_reached(task, row, outputs.row(position)) {
                self.offer(row, points.row(position));
            } else {
                missed.push(position);
            }
        }
        missed
    }

    /// The nearest point of a sample, if any was found.
    pub(crate) fn found(&self, row: usize) -> Option<&[f32]> {
        self.distances[row].is_finite().then(|| self.points.row(row))
    }

    /// The nearest points where the threat model allows them; the clean sample elsewhere.
    pub(crate) fn finish(mut self) -> Perturbation {
        let clean = self.problem.inputs;
        let mut success = vec![false; clean.len()];
        for (row, success) in success.iter_mut().enumerate() {
            *success =
                self.distances[row].is_finite() && self.problem.threat.allows(clean.row(row), self.points.row(row));
            if !*success {
                self.points.copy_row(row, clean, row);
            }
        }
        Perturbation { inputs: self.points, success }
    }
}

/// Whether the sample of this row may still be asked `queries` times.
pub(crate) fn can_pay(problem: &AttackProblem<'_>, row: usize, queries: u32) -> bool {
    problem.oracle.remaining(problem.inputs.indices()[row]) >= queries
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Goal, Norm, Oracle, Seed, ThreatModel};
    use nocebo_testkit::suite;

    #[test]
    fn keeps_the_nearest_and_gives_back_the_clean_sample_beyond_epsilon() {
        let (model, inputs) = (suite::linear_pair(), suite::ct_samples().select(&[0, 1]));
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::Linf, 5.0, suite::ct_domain()).unwrap();
        let oracle = Oracle::new(&model, Some(2));
        let problem = AttackProblem { oracle: &oracle, inputs: &inputs, goal: &goal, threat: &threat, seed: Seed(1) };
        let away = |row: usize, by: f32| inputs.row(row).iter().map(|value| value + by).collect::<Vec<_>>();
        let mut nearest = Nearest::new(&problem);
        assert!(nearest.found(0).is_none() && can_pay(&problem, 0, 2) && !can_pay(&problem, 0, 3));
        for by in [4.0, 2.0, 3.0] {
            nearest.offer(0, &away(0, by));
        }
        assert_eq!(nearest.found(0), Some(away(0, 2.0).as_slice()));
        nearest.offer(1, &away(1, 6.0));
        let found = nearest.finish();
        assert_eq!(found.success, [true, false]);
        assert_eq!((found.inputs.row(0), found.inputs.row(1)), (away(0, 2.0).as_slice(), inputs.row(1)));
    }
}
