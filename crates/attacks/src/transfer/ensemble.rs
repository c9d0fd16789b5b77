//! Several models as one, to be attacked together.
//!
//! ```text
//! logits         z = Σₖ wₖ·zₖ                    Dong et al. 2018, arXiv:1710.06081, section 3.3
//! probabilities  z = log Σₖ wₖ·softmax(zₖ)       Liu et al. 2017, arXiv:1611.02770, section 2.5 (sigmoid: its log-odds)
//! loss           L = Σₖ wₖ·L(zₖ), outputs as for logits
//! ```

use std::sync::Arc;

use nocebo_core::{DifferentiableModel, Error, Gradient, Model, ModelSpec, Objective, Outputs, Samples, Task};
use serde::{Deserialize, Serialize};

/// What of the models is averaged.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fusion {
    /// Their logits.
    #[default]
    Logits,
    /// Their probabilities; the outputs are the logarithms of the means, which have them as softmax.
    Probabilities,
    /// Their objectives.
    Loss,
}

/// A weighted mean of models with the same inputs and task.
///
/// One pass costs one pass of every member; a gradient of fused logits or probabilities costs each one forward pass
/// more, because the objective must see the mean first.
///
/// ```
/// # use std::sync::Arc;
/// # use nocebo_attacks::transfer::ensemble::{Ensemble, Fusion};
/// # use nocebo_core::{DifferentiableModel, Model};
/// # use nocebo_testkit::suite;
/// let members: Vec<Arc<dyn DifferentiableModel>> = vec![Arc::new(suite::linear_pair()), Arc::new(suite::linear_pair())];
/// let ensemble = Ensemble::new(members, &[2.0, 1.0], Fusion::Logits)?;
/// let alone = suite::linear_pair().outputs(&suite::ct_samples())?;
/// assert!((ensemble.outputs(&suite::ct_samples())?.row(0)[0] / alone.row(0)[0] - 1.0).abs() < 1e-6);
/// # Ok::<(), nocebo_core::Error>(())
/// ```
pub struct Ensemble {
    members: Vec<Arc<dyn DifferentiableModel>>,
    weights: Vec<f64>,
    fusion: Fusion,
    spec: ModelSpec,
}

impl Ensemble {
    /// The weighted mean of `members`; the weights are divided by their sum. Inputs and names are the first member's.
    ///
    /// # Errors
    ///
    /// When there is no member, there is not one weight a member, a weight is not finite and above 0, or the members
    /// do not share a shape of inputs and a task (thresholds included).
    pub fn new(members: Vec<Arc<dyn DifferentiableModel>>, weights: &[f32], fusion: Fusion) -> Result<Self, Error> {
        let Some(first) = members.first() else {
            return Err(Error::mismatch("models of an ensemble", "at least 1", 0));
        };
        if weights.len() != members.len() {
            return Err(Error::mismatch("weights of an ensemble", members.len(), weights.len()));
        }
        if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
            return Err(Error::invalid("weights", "finite and above 0", weight));
        }
        let spec = first.spec().clone();
        for member in &members {
            let (domain, task) = (&member.spec().domain, &member.spec().task);
            if domain.shape() != spec.domain.shape() {
                let shapes = (format!("{:?}", spec.domain.shape()), format!("{:?}", domain.shape()));
                return Err(Error::mismatch("shape of a sample in an ensemble", shapes.0, shapes.1));
            }
            if *task != spec.task {
                let tasks = (format!("{:?}", spec.task), format!("{task:?}"));
                return Err(Error::mismatch("task of a model in an ensemble", tasks.0, tasks.1));
            }
        }
        if fusion == Fusion::Probabilities && matches!(spec.task, Task::Segmentation(_)) {
            return Err(Error::unsupported("the mean probability of segmentations", "fuse their logits or losses"));
        }
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let weights = weights.iter().map(|weight| f64::from(*weight) / sum).collect();
        Ok(Self { members, weights, fusion, spec })
    }

    fn fuse(&self, outputs: &[Outputs], inputs: &Samples) -> Result<Outputs, Error> {
        let rows = (0..inputs.len()).flat_map(|row| {
            let logits: Vec<&[f32]> = outputs.iter().map(|outputs| outputs.row(row)).collect();
            self.fuse_row(&logits)
        });
        Ok(Samples::new(rows.collect(), &[self.spec.task.outputs()])?.with_indices(inputs.indices().to_vec())?.into())
    }

    fn fuse_row(&self, logits: &[&[f32]]) -> Vec<f32> {
        (0..self.spec.task.outputs())
            .map(|output| {
                let members = || self.weights.iter().zip(logits);
                let log_mean = |log: &dyn Fn(&[f32]) -> f64| {
                    log_sum_exp(members().map(|(weight, logits)| weight.ln() + log(logits)))
                };
                let fused = match (self.fusion, &self.spec.task) {
                    (Fusion::Logits | Fusion::Loss, _) => {
                        members().map(|(weight, logits)| weight * f64::from(logits[output])).sum()
                    }
                    (Fusion::Probabilities, Task::MultiClass { .. }) => log_mean(&|logits| log_softmax(logits, output)),
                    (Fusion::Probabilities, _) => {
                        log_mean(&|logits| log_sigmoid(f64::from(logits[output])))
                            - log_mean(&|logits| log_sigmoid(-f64::from(logits[output])))
                    }
                };
                fused as f32
            })
            .collect()
    }

    /// The cotangent on the logits of every member from that on the fused logits.
    fn split(&self, logits: &[&[f32]], fused: &[f32], cotangent: &[f32]) -> Vec<Vec<f32>> {
        let scaled = |weight: f64| cotangent.iter().map(|slope| (weight * f64::from(*slope)) as f32).collect();
        let members = self.weights.iter().zip(logits);
        match (self.fusion, &self.spec.task) {
            (Fusion::Logits | Fusion::Loss, _) => members.map(|(weight, _)| scaled(*weight)).collect(),
            (Fusion::Probabilities, Task::MultiClass { classes }) => members
                .map(|(weight, logits)| {
                    let probability: Vec<f64> = (0..*classes).map(|class| log_softmax(logits, class).exp()).collect();
                    // Share of this member in the mean probability of each class, times the cotangent.
                    let shares: Vec<f64> = (0..*classes)
                        .map(|class| {
                            let share = weight.ln() + log_softmax(logits, class) - f64::from(fused[class]);
                            share.exp() * f64::from(cotangent[class])
                        })
                        .collect();
                    let sum: f64 = shares.iter().sum();
                    shares.iter().zip(probability).map(|(share, p)| (share - p * sum) as f32).collect()
                })
                .collect(),
            (Fusion::Probabilities, _) => members
                .map(|(weight, logits)| {
                    let both = |logit: f64| log_sigmoid(logit) + log_sigmoid(-logit);
                    let slopes = logits.iter().zip(fused).zip(cotangent).map(|((logit, fused), slope)| {
                        let share = weight.ln() + both(f64::from(*logit)) - both(f64::from(*fused));
                        (share.exp() * f64::from(*slope)) as f32
                    });
                    slopes.collect()
                })
                .collect(),
        }
    }
}

fn log_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let greatest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    if greatest.is_finite() { greatest + terms.map(|term| (term - greatest).exp()).sum::<f64>().ln() } else { greatest }
}

fn log_softmax(logits: &[f32], class: usize) -> f64 {
    f64::from(logits[class]) - log_sum_exp(logits.iter().map(|logit| f64::from(*logit)))
}

fn log_sigmoid(logit: f64) -> f64 {
    logit.min(0.0) - (-logit.abs()).exp().ln_1p()
}

/// A linear function of the logits with its own slopes for each row.
struct Linear(Vec<Vec<f32>>);

impl Objective for Linear {
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        cotangent.copy_from_slice(&self.0[row]);
        let value: f64 = outputs.iter().zip(&self.0[row]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        Ok(value as f32)
    }
}

impl Model for Ensemble {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        let outputs: Vec<Outputs> =
            self.members.iter().map(|member| member.outputs(inputs)).collect::<Result<_, _>>()?;
        self.fuse(&outputs, inputs)
    }
}

impl DifferentiableModel for Ensemble {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let mut sum = vec![0.0_f64; inputs.values().len()];
        let mut add = |weight: f64, gradient: &Samples| {
            for (sum, slope) in sum.iter_mut().zip(gradient.values()) {
                *sum += weight * f64::from(*slope);
            }
        };
        let (outputs, values) = if self.fusion == Fusion::Loss {
            let mut values = vec![0.0_f64; inputs.len()];
            let mut outputs = Vec::with_capacity(self.members.len());
            for (member, &weight) in self.members.iter().zip(&self.weights) {
                let gradient = member.gradient(inputs, objective)?;
                add(weight, &gradient.inputs);
                for (sum, value) in values.iter_mut().zip(&gradient.values) {
                    *sum += weight * f64::from(*value);
                }
                outputs.push(gradient.outputs);
            }
            (self.fuse(&outputs, inputs)?, values.into_iter().map(|value| value as f32).collect())
        } else {
            let outputs: Vec<Outputs> =
                self.members.iter().map(|member| member.outputs(inputs)).collect::<Result<_, _>>()?;
            let fused = self.fuse(&outputs, inputs)?;
            let mut values = Vec::with_capacity(inputs.len());
            let mut slopes = vec![Vec::with_capacity(inputs.len()); self.members.len()];
            for row in 0..inputs.len() {
                let logits: Vec<&[f32]> = outputs.iter().map(|outputs| outputs.row(row)).collect();
                let mut cotangent = vec![0.0; fused.row(row).len()];
                values.push(objective.evaluate(row, fused.row(row), &mut cotangent)?);
                for (slopes, own) in slopes.iter_mut().zip(self.split(&logits, fused.row(row), &cotangent)) {
                    slopes.push(own);
                }
            }
            for (member, slopes) in self.members.iter().zip(slopes) {
                add(1.0, &member.gradient(inputs, &Linear(slopes))?.inputs);
            }
            (fused, values)
        };
        let slopes = Samples::new(sum.into_iter().map(|slope| slope as f32).collect(), inputs.shape())?;
        Ok(Gradient { outputs, values, inputs: slopes.with_indices(inputs.indices().to_vec())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Goal, GoalObjective, Label, Loss};
    use nocebo_testkit::models::{Linear as Toy, SmallRelu};
    use nocebo_testkit::suite;

    /// Two networks that agree on nothing: the toy one, and the one with its classes turned round.
    fn relus() -> Vec<Arc<dyn DifferentiableModel>> {
        let unit = |seed: usize, at: usize| (((seed * 41 + at) * 13 + 5) % 23) as f32 / 11.0 - 1.0;
        let layer = |rows: usize, columns: usize, scale: f32| -> Vec<Vec<f32>> {
            (0..rows).map(|row| (0..columns).map(|at| unit(row, at) * scale).collect()).collect()
        };
        let hidden = Toy::new(suite::ct_domain(), Task::MultiClass { classes: 5 }, layer(5, 12, 0.01), vec![0.3; 5]);
        let units = nocebo_core::Domain::grey_levels(&[5], 1e6).unwrap();
        let head = Toy::new(units, Task::MultiClass { classes: 3 }, layer(3, 5, 1.0), vec![0.1, 0.0, -0.1]);
        vec![Arc::new(suite::small_relu()), Arc::new(SmallRelu::new(hidden, head))]
    }

    fn flags(task: &Task) -> Vec<Arc<dyn DifferentiableModel>> {
        let toy = |seed: usize| {
            let row =
                |output: usize| (0..12).map(|at| ((seed + output * 12 + at) * 7 % 13) as f32 / 600.0 - 0.01).collect();
            let outputs = task.outputs();
            Toy::new(suite::ct_domain(), task.clone(), (0..outputs).map(row).collect(), vec![0.2; outputs])
        };
        vec![Arc::new(toy(1)), Arc::new(toy(5))]
    }

    #[test]
    fn the_mean_of_linear_models_is_linear() {
        let fused = Ensemble::new(flags(&Task::Binary { threshold: 0.0 }), &[3.0, 1.0], Fusion::Logits).unwrap();
        let samples = suite::ct_samples();
        let members = flags(&Task::Binary { threshold: 0.0 });
        let [first, second] = [0, 1].map(|at: usize| members[at].outputs(&samples).unwrap());
        for (row, fused) in fused.outputs(&samples).unwrap().rows().enumerate() {
            assert!((fused[0] - (0.75 * first.row(row)[0] + 0.25 * second.row(row)[0])).abs() < 1e-5);
        }
    }

    #[test]
    fn fused_probabilities_are_the_mean_probabilities() {
        let samples = suite::ct_samples().select(&[0]);
        let softmax = |logits: &[f32]| {
            let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
            logits.iter().map(|logit| logit.exp() / sum).collect::<Vec<_>>()
        };
        let members = relus();
        let fused = Ensemble::new(relus(), &[1.0, 3.0], Fusion::Probabilities).unwrap().outputs(&samples).unwrap();
        let own: Vec<Vec<f32>> =
            members.iter().map(|member| softmax(member.outputs(&samples).unwrap().row(0))).collect();
        for (class, p) in softmax(fused.row(0)).into_iter().enumerate() {
            assert!((p - (0.25 * own[0][class] + 0.75 * own[1][class])).abs() < 1e-6);
        }
    }

    #[test]
    fn gradients_agree_with_central_differences() {
        let (binary, labels) = (Task::Binary { threshold: 0.1 }, Task::MultiLabel { thresholds: vec![0.0, 0.2] });
        let cases = [
            (relus(), Goal::Untargeted { labels: vec![Label::Class(1); 2] }),
            (flags(&binary), Goal::FalsePositive { finding: 1 }),
            (flags(&labels), Goal::Untargeted { labels: vec![Label::Findings(vec![true, false]); 2] }),
        ];
        let samples = suite::ct_samples().select(&[2, 5]);
        for (members, goal) in cases {
            for fusion in [Fusion::Logits, Fusion::Probabilities, Fusion::Loss] {
                let ensemble = Ensemble::new(members.clone(), &[1.0, 2.0], fusion).unwrap();
                let objective = GoalObjective::new(&goal, &ensemble.spec.task, Loss::CrossEntropy).unwrap();
                let ours = ensemble.gradient(&samples, &objective).unwrap();
                assert_eq!(ours.outputs, ensemble.outputs(&samples).unwrap());
                for element in 0..12 {
                    let at = |shift: f32| {
                        let mut moved = samples.clone();
                        moved.rows_mut().for_each(|row| row[element] += shift);
                        ensemble.gradient(&moved, &objective).unwrap().values
                    };
                    for (row, (up, down)) in at(0.5).into_iter().zip(at(-0.5)).enumerate() {
                        let slope = ours.inputs.row(row)[element];
                        assert!(
                            (up - down - slope).abs() < 2e-4 + 0.02 * slope.abs(),
                            "{fusion:?} {row} {element}: {} {slope}",
                            up - down
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn confident_members_keep_a_finite_gradient() {
        let steep = |sign: f32| -> Arc<dyn DifferentiableModel> {
            let weights = vec![vec![sign * 3.0; 12], vec![0.0; 12]];
            Arc::new(Toy::new(suite::ct_domain(), Task::MultiClass { classes: 2 }, weights, vec![0.0; 2]))
        };
        let samples = Samples::new(vec![100.0; 12], &[1, 3, 4]).unwrap();
        let ensemble = Ensemble::new(vec![steep(1.0), steep(1.0)], &[1.0, 1.0], Fusion::Probabilities).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let objective = GoalObjective::new(&goal, &ensemble.spec.task, Loss::CrossEntropy).unwrap();
        let gradient = ensemble.gradient(&samples, &objective).unwrap();
        assert!(gradient.inputs.values().iter().all(|slope| (slope + 3.0).abs() < 1e-3), "{gradient:?}");
    }

    #[test]
    fn members_that_do_not_fit_are_refused() {
        let binary = flags(&Task::Binary { threshold: 0.0 });
        assert!(Ensemble::new(vec![], &[], Fusion::Logits).is_err());
        assert!(Ensemble::new(binary.clone(), &[1.0], Fusion::Logits).is_err());
        assert!(Ensemble::new(binary.clone(), &[1.0, 0.0], Fusion::Logits).is_err());
        let mixed = vec![binary[0].clone(), flags(&Task::Binary { threshold: 1.0 })[0].clone()];
        let message = Ensemble::new(mixed, &[1.0, 1.0], Fusion::Logits).err().unwrap().to_string();
        assert!(message.contains("threshold: 1"), "{message}");
    }
}
