//! The decision boundaries around a sample, as objectives.
//!
//! ```text
//! untargeted, classes         one boundary for each other class k: z_k − z_y
//! untargeted, grades          one for each grade k far enough from y: z_k − max z_i over the grades i that are not
//! untargeted, findings        one boundary for each finding i: its logit's signed distance to the threshold
//! one logit, one finding, or a target     a single boundary: the margin of the goal (greater than 0 where it is reached)
//! ```

use nocebo_core::{AttackProblem, Error, Goal, GoalObjective, Label, Loss, Objective, Outputs, Task};

/// An objective made for a full batch, seen by a batch that holds only some of its rows.
pub(crate) struct ForRows<'a> {
    /// For the full batch.
    pub(crate) objective: &'a dyn Objective,
    /// Row of the full batch for each row of the part.
    pub(crate) rows: &'a [usize],
}

impl Objective for ForRows<'_> {
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        self.objective.evaluate(self.rows[row], outputs, cotangent)
    }
}

/// The boundaries of each sample of a problem whose crossing, of any one, reaches its goal: nearest in logits first.
pub(crate) struct Boundaries<'a> {
    whole: GoalObjective<'a>,
    task: &'a Task,
    /// Class or finding behind each boundary, for each row; `None` where the goal has a single boundary.
    ranked: Option<Vec<Vec<usize>>>,
    ways: usize,
    /// The class to leave, or whether the finding at hand is present, as the clean sample has it.
    labels: Vec<Label>,
}

impl<'a> Boundaries<'a> {
    /// At most `most` boundaries a sample. Costs one query a sample where there is more than one.
    pub(crate) fn new(problem: &'a AttackProblem<'_>, most: usize) -> Result<Self, Error> {
        let task = &problem.oracle.spec().task;
        let whole = problem.objective(problem.goal, Loss::Margin)?;
        let labels = match (problem.goal, task) {
            (Goal::Untargeted { labels }, Task::MultiClass { .. } | Task::MultiLabel { .. } | Task::Ordinal { .. }) => {
                labels.clone()
            }
            (Goal::FalseNegative { finding }, Task::MultiClass { .. }) => {
                vec![Label::Class(*finding); problem.inputs.len()]
            }
            _ => return Ok(Self { whole, task, ranked: None, ways: 1, labels: Vec::new() }),
        };
        let mut boundaries = Self { whole, task, ranked: None, ways: 1, labels };
        let clean = problem.oracle.outputs(problem.inputs)?;
        boundaries.rank(&clean, most.max(1));
        Ok(boundaries)
    }

    fn rank(&mut self, clean: &Outputs, most: usize) {
        let ranked: Vec<Vec<usize>> = clean
            .rows()
            .enumerate()
            .map(|(row, logits)| {
                let leaves = |index: usize| match self.task {
                    Task::Ordinal { .. } => !self.task.is_right(&self.labels[row], &Label::Class(index)),
                    _ => self.labels[row] != Label::Class(index),
                };
                let mut indices: Vec<usize> = (0..logits.len()).filter(|&index| leaves(index)).collect();
                let nearness = |index: usize| self.value(row, index, logits).0;
                indices.sort_by(|&a, &b| nearness(b).total_cmp(&nearness(a)).then(a.cmp(&b)));
                indices.truncate(most);
                indices
            })
            .collect();
        // Grades differ in how many lie far enough from them: the nearest again where there is no other.
        self.ways = ranked.iter().map(Vec::len).max().unwrap_or(1);
        self.ranked = Some(ranked);
    }

    /// Number of boundaries of each sample.
    pub(crate) fn ways(&self) -> usize {
        self.ways
    }

    /// For exclusive classes: the goal of reaching the class behind the boundary of this rank.
    pub(crate) fn targeted_goal(&self, rank: usize) -> Option<Goal> {
        let (Some(ranked), Task::MultiClass { .. } | Task::Ordinal { .. }) = (&self.ranked, self.task) else {
            return None;
        };
        let targets = ranked.iter().map(|indices| Label::Class(indices[rank % indices.len()])).collect();
        Some(Goal::Targeted { labels: self.labels.clone(), targets })
    }

    /// The objective that is positive behind the boundary of this rank, for the full batch.
    pub(crate) fn crossing(&self, rank: usize) -> Crossing<'_> {
        Crossing { boundaries: self, rank }
    }

    /// Signed distance of the logits to the boundary of class or finding `index`, and its two slopes: on the logit of
    /// `index` and on that of the class to leave.
    fn value(&self, row: usize, index: usize, logits: &[f32]) -> (f32, f32, Option<usize>) {
        match (&self.labels[row], self.task) {
            (Label::Class(truth), Task::Ordinal { serious, .. }) => {
                let near = (0..logits.len()).filter(|grade| grade.abs_diff(*truth) < *serious);
                let from = near.reduce(|a, b| if logits[b] > logits[a] { b } else { a }).unwrap_or(*truth);
                (logits[index] - logits[from], 1.0, Some(from))
            }
            (Label::Class(from), _) => (logits[index] - logits[*from], 1.0, Some(*from)),
            (Label::Findings(found), Task::MultiLabel { thresholds }) => {
                let sign = if found[index] { -1.0 } else { 1.0 };
                (sign * (logits[index] - thresholds[index]), sign, None)
            }
            // Refused by `Goal::check`.
            (Label::Findings(_) | Label::Mask(_) | Label::Number(_), _) => (0.0, 0.0, None),
        }
    }
}

/// One boundary of each sample; see [`Boundaries::crossing`].
pub(crate) struct Crossing<'a> {
    boundaries: &'a Boundaries<'a>,
    rank: usize,
}

impl Objective for Crossing<'_> {
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        let Some(ranked) = &self.boundaries.ranked else {
            return self.boundaries.whole.evaluate(row, outputs, cotangent);
        };
        let index = ranked[row][self.rank % ranked[row].len()];
        let (value, slope, from) = self.boundaries.value(row, index, outputs);
        cotangent.fill(0.0);
        cotangent[index] = slope;
        if let Some(from) = from {
            cotangent[from] = -slope;
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Norm, Oracle, Samples, Seed, ThreatModel};
    use nocebo_testkit::models::Linear;

    /// The input is the logits.
    fn identity(task: Task) -> Linear {
        let size = task.outputs();
        let weights = (0..size).map(|row| (0..size).map(|at| f32::from(u8::from(at == row))).collect()).collect();
        Linear::new(Domain::grey_levels(&[size], 255.0).unwrap(), task, weights, vec![0.0; size])
    }

    fn evaluated(task: Task, goal: &Goal, logits: Vec<f32>, most: usize) -> Vec<(f32, Vec<f32>)> {
        let (model, size) = (identity(task), logits.len());
        let inputs = Samples::new(logits, &[size]).unwrap();
        let threat = ThreatModel::new(Norm::L2, 1.0, Domain::grey_levels(&[size], 255.0).unwrap()).unwrap();
        let oracle = Oracle::new(&model, None);
        let problem = AttackProblem { oracle: &oracle, inputs: &inputs, goal, threat: &threat, seed: Seed(1) };
        let boundaries = Boundaries::new(&problem, most).unwrap();
        (0..boundaries.ways())
            .map(|rank| {
                let mut cotangent = vec![f32::NAN; size];
                let value = boundaries.crossing(rank).evaluate(0, inputs.row(0), &mut cotangent).unwrap();
                (value, cotangent)
            })
            .collect()
    }

    #[test]
    fn other_classes_are_ranked_by_falling_logit() {
        let classes = Task::MultiClass { classes: 4 };
        let logits = vec![1.0, 9.0, 5.0, 7.0];
        let expected = vec![(-2.0, vec![0.0, -1.0, 0.0, 1.0]), (-4.0, vec![0.0, -1.0, 1.0, 0.0])];
        let untargeted = Goal::Untargeted { labels: vec![Label::Class(1)] };
        assert_eq!(evaluated(classes.clone(), &untargeted, logits.clone(), 2), expected);
        assert_eq!(evaluated(classes.clone(), &Goal::FalseNegative { finding: 1 }, logits.clone(), 2), expected);
        assert_eq!(evaluated(classes.clone(), &untargeted, logits.clone(), 9).len(), 3);
        // A wanted class has one boundary, to the strongest of the others.
        let invent = evaluated(classes, &Goal::FalsePositive { finding: 0 }, logits, 9);
        assert_eq!(invent, [(-8.0, vec![1.0, -1.0, 0.0, 0.0])]);
    }

    #[test]
    fn grades_are_crossed_where_the_error_counts() {
        let task = Task::Ordinal { grades: 4, serious: 2 };
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        // Of the grades near to 0, grade 1 has the greater logit.
        let found = evaluated(task.clone(), &goal, vec![1.0, 9.0, 5.0, 7.0], 9);
        assert_eq!(found, [(-2.0, vec![0.0, -1.0, 0.0, 1.0]), (-4.0, vec![0.0, -1.0, 1.0, 0.0])]);
        let goal = Goal::Untargeted { labels: vec![Label::Class(1)] };
        assert_eq!(evaluated(task, &goal, vec![1.0, 9.0, 5.0, 7.0], 9), [(-2.0, vec![0.0, -1.0, 0.0, 1.0])]);
    }

    #[test]
    fn findings_are_ranked_by_their_distance_to_the_threshold() {
        let findings = Task::MultiLabel { thresholds: vec![1.0, 2.0, 0.0] };
        let untargeted = Goal::Untargeted { labels: vec![Label::Findings(vec![true, false, true])] };
        let found = evaluated(findings, &untargeted, vec![8.0, 0.0, 3.0], 2);
        assert_eq!(found, [(-2.0, vec![0.0, 1.0, 0.0]), (-3.0, vec![0.0, 0.0, -1.0])]);
    }

    #[test]
    fn one_logit_has_one_boundary() {
        let binary = Task::Binary { threshold: 2.0 };
        let untargeted = Goal::Untargeted { labels: vec![Label::Class(1)] };
        assert_eq!(evaluated(binary, &untargeted, vec![7.0], 9), [(-5.0, vec![-1.0])]);
    }
}
