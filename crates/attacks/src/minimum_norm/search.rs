//! The loop that the minimum-norm attacks share: each sample has its own search, all samples share the batches.

use nocebo_core::{AttackProblem, Error, Goal, Loss, Norm, Objective, Outputs, Perturbation, Samples};

/// The nearest successful point of each sample.
pub(crate) struct Nearest<'a> {
    problem: &'a AttackProblem<'a>,
    found: Samples,
    sizes: Vec<f64>,
}

impl<'a> Nearest<'a> {
    pub(crate) fn new(problem: &'a AttackProblem<'a>) -> Self {
        let batch = problem.inputs.len();
        Self { problem, found: problem.inputs.clone(), sizes: vec![f64::INFINITY; batch] }
    }

    /// Size of the change kept for this row; infinity when there is none.
    pub(crate) fn size(&self, row: usize) -> f64 {
        self.sizes[row]
    }

    /// Keeps a point that reached the goal when its change is smaller than the one kept.
    pub(crate) fn offer(&mut self, row: usize, point: &[f32], size: f64) {
        if size < self.sizes[row] {
            self.found.row_mut(row).copy_from_slice(point);
            self.sizes[row] = size;
        }
    }

    /// The kept points. A sample without one, or with one beyond a finite epsilon, is clean and no success.
    pub(crate) fn finish(mut self) -> Perturbation {
        let threat = self.problem.threat;
        let success: Vec<bool> = (0..self.found.len())
            .map(|row| {
                let distance = threat.norm().distance(self.problem.inputs.row(row), self.found.row(row));
                self.sizes[row].is_finite() && distance <= f64::from(threat.epsilon())
            })
            .collect();
        for (row, _) in success.iter().enumerate().filter(|(_, success)| !**success) {
            self.found.copy_row(row, self.problem.inputs, row);
        }
        Perturbation { inputs: self.found, success }
    }
}

/// What a search wants to know next; the point lies inside the bounds and the region.
pub(crate) enum Ask {
    /// Value and gradient of the objective.
    Gradient(Vec<f32>),
    /// Value of the objective alone, which costs no backward pass.
    Value(Vec<f32>),
}

impl Ask {
    fn point(&self) -> &[f32] {
        match self {
            Self::Gradient(point) | Self::Value(point) => point,
        }
    }
}

/// The answer.
pub(crate) struct Seen<'a> {
    /// The point asked about.
    pub(crate) point: &'a [f32],
    /// Whether it reaches the goal.
    pub(crate) reached: bool,
    /// The objective, greater nearer to the goal.
    pub(crate) value: f64,
    /// Its derivative by the point; empty when only the value was asked for.
    pub(crate) gradient: &'a [f32],
}

/// The search for the least change of one sample.
pub(crate) trait Search {
    /// Takes an answer and names the next point; `None` when done. The first answer is the gradient at the clean sample.
    fn next(&mut self, seen: &Seen<'_>) -> Option<Ask>;

    /// Whether the point counts as found.
    fn accepts(&self, seen: &Seen<'_>) -> bool {
        seen.reached
    }

    /// What is least at the point that is returned.
    fn size(&self, norm: Norm, clean: &[f32], point: &[f32]) -> f64 {
        norm.distance(clean, point)
    }
}

/// [`minimise_objective`] with the objective of the problem's goal.
pub(crate) fn minimise<S: Search>(
    problem: &AttackProblem<'_>,
    loss: Loss,
    search: impl Fn(usize) -> S,
) -> Result<Perturbation, Error> {
    minimise_objective(problem, |problem, goal| Ok(Box::new(problem.objective(goal, loss)?)), search)
}

/// Runs one `search` for each row of the problem, side by side, and returns the nearest point that each accepted.
///
/// Every round asks for all samples that still search, in one batch of gradients and one of values. A sample whose
/// queries are spent stops with what it has. `objective` belongs to the goal of the rows of one batch.
pub(crate) fn minimise_objective<S: Search>(
    problem: &AttackProblem<'_>,
    objective: impl for<'g> Fn(&'g AttackProblem<'g>, &'g Goal) -> Result<Box<dyn Objective + 'g>, Error>,
    search: impl Fn(usize) -> S,
) -> Result<Perturbation, Error> {
    let inputs = problem.inputs;
    let mut nearest = Nearest::new(problem);
    let mut waiting: Vec<(usize, S, Ask)> =
        (0..inputs.len()).map(|row| (row, search(row), Ask::Gradient(inputs.row(row).to_vec()))).collect();
    while !waiting.is_empty() {
        waiting.retain(|(row, ..)| problem.oracle.remaining(inputs.indices()[*row]) > 0);
        let (slopes, values): (Vec<_>, Vec<_>) =
            waiting.drain(..).partition(|(.., ask)| matches!(ask, Ask::Gradient(_)));
        for (with_gradient, asked) in [(true, slopes), (false, values)] {
            if asked.is_empty() {
                continue;
            }
            let rows: Vec<usize> = asked.iter().map(|(row, ..)| *row).collect();
            let points = asked.iter().flat_map(|(.., ask)| ask.point()).copied().collect();
            let indices = rows.iter().map(|&row| inputs.indices()[row]).collect();
            let points = Samples::new(points, inputs.shape())?.with_indices(indices)?;
            let goal = problem.goal.select(&rows);
            let objective = objective(problem, &goal)?;
            let (outputs, values, gradients) = if with_gradient {
                let gradient = problem.oracle.gradient(&points, &*objective)?;
                (gradient.outputs, gradient.values, Some(gradient.inputs))
            } else {
                let outputs = problem.oracle.outputs(&points)?;
                let values = evaluate(&*objective, &outputs)?;
                (outputs, values, None)
            };
            let reached = goal.reached(&problem.oracle.spec().task, &outputs);
            for (position, (row, mut search, ask)) in asked.into_iter().enumerate() {
                let seen = Seen {
                    point: ask.point(),
                    reached: reached[position],
                    value: f64::from(values[position]),
                    gradient: gradients.as_ref().map_or(&[], |gradients| gradients.row(position)),
                };
                if search.accepts(&seen) {
                    let size = search.size(problem.threat.norm(), inputs.row(row), seen.point);
                    nearest.offer(row, seen.point, size);
                }
                if let Some(ask) = search.next(&seen) {
                    waiting.push((row, search, ask));
                }
            }
        }
    }
    Ok(nearest.finish())
}

fn evaluate(objective: &dyn Objective, outputs: &Outputs) -> Result<Vec<f32>, Error> {
    let mut cotangent = Vec::new();
    outputs
        .rows()
        .enumerate()
        .map(|(row, logits)| {
            cotangent.resize(logits.len(), 0.0);
            objective.evaluate(row, logits, &mut cotangent)
        })
        .collect()
}
