//! Logistic regression: the simplest substitute of a model, trained here without any framework.
//!
//! ```text
//! z = W·u + b + threshold,  u = (x − middle)/(range/2) in [−1, 1]
//! min over W, b   mean cross-entropy of softmax(z), or of sigmoid(z − threshold) for each flag      by Adam on all samples
//! ```

use nocebo_core::{DifferentiableModel, Error, Gradient, Label, Model, ModelSpec, Objective, Outputs, Samples, Task};

use crate::adam::Adam;

/// A linear model over the bounds of its inputs.
pub struct Logistic {
    spec: ModelSpec,
    /// One row of weights a logit, on inputs scaled to [−1, 1].
    weights: Vec<Vec<f32>>,
    biases: Vec<f32>,
}

impl Logistic {
    /// Trains on samples with the labels that a model gave them.
    ///
    /// # Errors
    ///
    /// When there is not one label a sample, a label does not fit the task, or the samples have another shape.
    pub fn train(
        spec: &ModelSpec,
        samples: &Samples,
        labels: &[Label],
        steps: usize,
        learning_rate: f32,
    ) -> Result<Self, Error> {
        if labels.len() != samples.len() {
            return Err(Error::mismatch("number of labels", samples.len(), labels.len()));
        }
        labels.iter().try_for_each(|label| spec.task.check_label(label))?;
        if let Task::Segmentation(_) = spec.task {
            return Err(Error::unsupported(
                "a logistic substitute for a segmentation",
                "it decides classes or findings",
            ));
        }
        let (outputs, elements) = (spec.task.outputs(), spec.domain.elements());
        let mut model = Self {
            spec: spec.clone(),
            weights: vec![vec![0.0; elements]; outputs],
            biases: match &spec.task {
                Task::Binary { threshold } => vec![*threshold],
                Task::MultiLabel { thresholds } => thresholds.clone(),
                _ => vec![0.0; outputs],
            },
        };
        let scaled: Vec<Vec<f32>> = samples.rows().map(|row| model.scaled(row)).collect();
        let mut adams: Vec<Adam> = (0..outputs).map(|_| Adam::new(elements + 1)).collect();
        for _ in 0..steps {
            let mut slopes = vec![vec![0.0_f64; elements + 1]; outputs];
            for (inputs, label) in scaled.iter().zip(labels) {
                let surplus = surplus(&spec.task, &model.logits(inputs), label);
                for (slopes, surplus) in slopes.iter_mut().zip(surplus) {
                    for (slope, input) in slopes.iter_mut().zip(inputs.iter().chain([&1.0])) {
                        *slope += surplus * f64::from(*input) / labels.len() as f64;
                    }
                }
            }
            for (output, (adam, slopes)) in adams.iter_mut().zip(slopes).enumerate() {
                let direction = adam.direction(&slopes);
                for (weight, part) in model.weights[output].iter_mut().zip(&direction) {
                    *weight -= learning_rate * *part as f32;
                }
                model.biases[output] -= learning_rate * direction[elements] as f32;
            }
        }
        Ok(model)
    }

    fn scaled(&self, row: &[f32]) -> Vec<f32> {
        let bounds = self.spec.domain.lower().iter().zip(self.spec.domain.upper());
        row.iter().zip(bounds).map(|(value, (lower, upper))| 2.0 * (value - lower) / (upper - lower) - 1.0).collect()
    }

    fn logits(&self, scaled: &[f32]) -> Vec<f32> {
        let dot = |weights: &[f32]| weights.iter().zip(scaled).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        self.weights.iter().zip(&self.biases).map(|(row, bias)| (dot(row) + f64::from(*bias)) as f32).collect()
    }
}

/// Probability less truth of each logit: the derivative of the cross-entropy.
fn surplus(task: &Task, logits: &[f32], label: &Label) -> Vec<f64> {
    let sigmoid = |logit: f32, threshold: f32| 1.0 / (1.0 + f64::from(threshold - logit).exp());
    let truth = |present: bool| f64::from(u8::from(present));
    match (task, label) {
        (Task::Binary { threshold }, Label::Class(class)) => vec![sigmoid(logits[0], *threshold) - truth(*class == 1)],
        (Task::MultiLabel { thresholds }, Label::Findings(found)) => logits
            .iter()
            .zip(thresholds)
            .zip(found)
            .map(|((logit, threshold), found)| sigmoid(*logit, *threshold) - truth(*found))
            .collect(),
        (_, label) => {
            let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - greatest).exp()).collect();
            let sum: f64 = powers.iter().sum();
            let is_true = |class: usize| *label == Label::Class(class);
            powers.iter().enumerate().map(|(class, power)| power / sum - truth(is_true(class))).collect()
        }
    }
}

impl Model for Logistic {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        self.spec.check_shape(inputs)?;
        let logits = inputs.rows().flat_map(|row| self.logits(&self.scaled(row))).collect();
        Ok(Samples::new(logits, &[self.weights.len()])?.with_indices(inputs.indices().to_vec())?.into())
    }
}

impl DifferentiableModel for Logistic {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let outputs = self.outputs(inputs)?;
        let bounds: Vec<f32> =
            self.spec.domain.lower().iter().zip(self.spec.domain.upper()).map(|(low, high)| high - low).collect();
        let mut slopes = inputs.clone();
        let mut values = Vec::with_capacity(inputs.len());
        for (row, logits) in outputs.rows().enumerate() {
            let mut cotangent = vec![0.0; logits.len()];
            values.push(objective.evaluate(row, logits, &mut cotangent)?);
            for (element, slope) in slopes.row_mut(row).iter_mut().enumerate() {
                let pulled: f64 = self
                    .weights
                    .iter()
                    .zip(&cotangent)
                    .map(|(weights, part)| f64::from(weights[element]) * f64::from(*part))
                    .sum();
                *slope = (2.0 * pulled / f64::from(bounds[element])) as f32;
            }
        }
        Ok(Gradient { outputs, values, inputs: slopes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, GoalObjective, Loss};
    use nocebo_testkit::suite;

    fn spec(task: Task) -> ModelSpec {
        let class_names = (0..task.classes()).map(|class| format!("{class}")).collect();
        ModelSpec { domain: Domain::grey_levels(&[2], 255.0).unwrap(), task, class_names }
    }

    #[test]
    fn separates_what_a_line_separates_in_every_task() {
        let samples =
            Samples::new(vec![10.0, 20.0, 30.0, 10.0, 200.0, 30.0, 220.0, 60.0, 40.0, 240.0, 90.0, 250.0], &[2]);
        let samples = samples.unwrap();
        let classes = [0, 0, 1, 1, 2, 2].map(Label::Class).to_vec();
        let bright = [0, 0, 1, 1, 1, 1].map(Label::Class).to_vec();
        let flags: Vec<Label> =
            samples.rows().map(|row| Label::Findings(vec![row[0] > 100.0, row[1] > 100.0])).collect();
        let tasks = [
            (Task::MultiClass { classes: 3 }, classes),
            (Task::Binary { threshold: 1.5 }, bright),
            (Task::MultiLabel { thresholds: vec![0.0, -2.0] }, flags),
        ];
        for (task, labels) in tasks {
            let model = Logistic::train(&spec(task.clone()), &samples, &labels, 300, 0.1).unwrap();
            assert_eq!(suite::decided(&model, &samples), labels, "{task:?}");
        }
    }

    #[test]
    fn halfway_between_two_classes_lies_the_threshold() {
        let samples = Samples::new(vec![0.0, 0.0, 255.0, 255.0], &[2]).unwrap();
        let labels = [Label::Class(0), Label::Class(1)];
        let model = Logistic::train(&spec(Task::Binary { threshold: 1.5 }), &samples, &labels, 100, 0.1).unwrap();
        let between = Samples::new(vec![127.5; 2], &[2]).unwrap();
        let middle = model.outputs(&between).unwrap().row(0)[0];
        assert!((middle - 1.5).abs() < 0.3, "{middle}");
    }

    #[test]
    fn its_gradient_agrees_with_differences() {
        let labels = vec![Label::Class(0), Label::Class(1)];
        let samples = Samples::new(vec![10.0, 200.0, 180.0, 40.0], &[2]).unwrap();
        let model = Logistic::train(&spec(Task::MultiClass { classes: 2 }), &samples, &labels, 50, 0.1).unwrap();
        let goal = Goal::Untargeted { labels };
        let objective = GoalObjective::new(&goal, &model.spec.task, Loss::Margin).unwrap();
        let slopes = model.gradient(&samples, &objective).unwrap().inputs;
        for element in 0..2 {
            let at = |shift: f32| {
                let mut moved = samples.clone();
                moved.rows_mut().for_each(|row| row[element] += shift);
                model.gradient(&moved, &objective).unwrap().values
            };
            for (row, (up, down)) in at(2.0).into_iter().zip(at(-2.0)).enumerate() {
                assert!(((up - down) / 4.0 - slopes.row(row)[element]).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn labels_that_do_not_fit_are_refused() {
        let samples = Samples::new(vec![10.0, 20.0], &[2]).unwrap();
        let train =
            |labels: &[Label]| Logistic::train(&spec(Task::MultiClass { classes: 3 }), &samples, labels, 1, 0.1);
        assert!(train(&[]).is_err());
        assert!(train(&[Label::Class(3)]).is_err());
        assert!(train(&[Label::Class(2)]).is_ok());
    }
}
