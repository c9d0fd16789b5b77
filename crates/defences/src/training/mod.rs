//! Adversarial training: the network learns from perturbed samples.

pub mod fgsm;
pub mod pgd;

use std::cell::RefCell;

use nocebo_attacks::gradient::fast_gradient::{FastGradient, FastGradientConfig};
use nocebo_attacks::gradient::pgd::{Pgd, PgdConfig};
use nocebo_core::{Attack, DifferentiableModel, Goal, ModelSpec, Seed, ThreatModel};
use nocebo_graph::train::{Event, Freeze, Labelled, Perturb, Trained, Training, TrainingConfig};
use nocebo_graph::{Device, Error, Graph};

/// Data and place of an adversarial training run.
pub struct Hardening<'a> {
    /// The network to start from.
    pub graph: &'a Graph,
    /// Its inputs and task.
    pub spec: &'a ModelSpec,
    /// Samples to learn from.
    pub data: Labelled<'a>,
    /// Samples that choose the checkpoint; never learnt from.
    pub validation: Labelled<'a>,
    /// What to be robust against.
    pub threat: &'a ThreatModel,
    /// Optimiser and schedule.
    pub config: &'a TrainingConfig,
    /// Where the network runs.
    pub device: &'a Device,
    /// What computes the network under attack; `None` for the Burn executor.
    pub freeze: Option<&'a Freeze<'a>>,
    /// Source of randomness.
    pub seed: Seed,
}

/// What an adversarial training run gives.
#[derive(Clone, Debug)]
pub struct Hardened {
    /// The checkpoint with the best robust validation accuracy, and the loss and that score of every epoch.
    pub trained: Trained,
    /// Accuracies of every epoch on validation.
    pub epochs: Vec<RobustEpoch>,
    /// The first epoch in which catastrophic overfitting was seen, if any.
    pub overfitting: Option<usize>,
}

/// Validation accuracies after one epoch.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct RobustEpoch {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// On clean samples.
    pub clean_accuracy: f64,
    /// Under one FGSM step of full size.
    pub one_step_accuracy: f64,
    /// Under PGD.
    pub robust_accuracy: f64,
}

/// What a run tells while it works.
#[derive(Clone, Copy, Debug)]
pub enum HardeningEvent {
    /// From the training loop.
    Training(Event),
    /// Accuracies of an epoch.
    Epoch(RobustEpoch),
    /// Robust accuracy collapsed while FGSM accuracy held: the network learnt to fool the one-step attack.
    CatastrophicOverfitting(RobustEpoch),
}

/// How far below the one-step accuracy the PGD accuracy lies when a network has learnt to mask its gradient.
///
/// Wong et al. 2020 (arXiv:2001.03994) describe the collapse: PGD accuracy falls to 0 within an epoch while FGSM
/// accuracy rises. An honest network keeps the two within a few points. The value is ours.
const COLLAPSE: f64 = 0.25;

impl Hardening<'_> {
    /// Trains on what `perturb` makes of each batch, and keeps the checkpoint that holds best against `judge`.
    ///
    /// Catastrophic overfitting is reported when, on validation, accuracy under one full FGSM step exceeds accuracy
    /// under `judge` by more than 25 points. The kept checkpoint is chosen by `judge`, so the collapse cannot be kept.
    fn run(
        &self,
        perturb: &Perturb<'_>,
        judge: &dyn Attack,
        observe: &mut dyn FnMut(HardeningEvent),
    ) -> Result<Hardened, Error> {
        let one_step = FastGradient::try_from(FastGradientConfig::default())?;
        let judged_seed = self.seed.named("validation");
        let observe = RefCell::new(observe);
        let mut epochs = Vec::new();
        let mut overfitting = None;
        let accuracy_under = |attack: &dyn Attack, model: &dyn DifferentiableModel| {
            let goal = Goal::Untargeted { labels: self.validation.labels.to_vec() };
            let outcome = attack.run(model, self.validation.samples, &goal, self.threat, judged_seed)?;
            Ok::<f64, nocebo_core::Error>(1.0 - share(&outcome.success))
        };
        let trained = Training {
            config: self.config,
            spec: self.spec,
            device: self.device,
            seed: self.seed,
            freeze: self.freeze,
            perturb: Some(perturb),
            score: &mut |model, epoch| {
                let outputs = model.outputs(self.validation.samples)?;
                let decided = outputs.rows().map(|logits| self.spec.task.decide(logits));
                let task = &self.spec.task;
                let right: Vec<bool> =
                    decided.zip(self.validation.labels).map(|(got, label)| task.is_right(label, &got)).collect();
                let record = RobustEpoch {
                    epoch,
                    clean_accuracy: share(&right),
                    one_step_accuracy: accuracy_under(&one_step, model)?,
                    robust_accuracy: accuracy_under(judge, model)?,
                };
                epochs.push(record);
                observe.borrow_mut()(HardeningEvent::Epoch(record));
                if record.one_step_accuracy - record.robust_accuracy > COLLAPSE {
                    overfitting.get_or_insert(epoch);
                    observe.borrow_mut()(HardeningEvent::CatastrophicOverfitting(record));
                }
                Ok(record.robust_accuracy)
            },
            observe: &mut |event| observe.borrow_mut()(HardeningEvent::Training(event)),
        }
        .run(self.graph, self.data)?;
        Ok(Hardened { trained, epochs, overfitting })
    }
}

/// The attack that judges checkpoints: PGD with 20 steps of an eighth of epsilon.
fn judge() -> Result<Pgd, nocebo_core::Error> {
    Pgd::try_from(PgdConfig { steps: 20, relative_step_size: 0.125, ..PgdConfig::default() })
}

fn share(flags: &[bool]) -> f64 {
    flags.iter().filter(|flag| **flag).count() as f64 / flags.len().max(1) as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nocebo_core::{Domain, Label, Norm, Samples, Task};
    use nocebo_graph::GraphModel;
    use nocebo_graph::zoo::{self, Blueprint};
    use rand::RngExt;

    /// 8×8 images with one robust feature (a square at the left or the right, 30 grey levels high) and a fragile one
    /// (a checkerboard of 6 grey levels over everything) that a plain network uses too.
    pub(crate) struct Problem {
        samples: Samples,
        labels: Vec<Label>,
        held_out: Samples,
        truth: Vec<Label>,
        spec: ModelSpec,
        threat: ThreatModel,
        config: TrainingConfig,
    }

    fn draw(count: usize, seed: u64) -> (Samples, Vec<Label>) {
        let mut values = Vec::new();
        let mut labels = Vec::new();
        for index in 0..count {
            let mut generator = Seed(seed).for_sample(index as u64);
            let right = index % 2 == 1;
            for at in 0..64 {
                let (y, x) = (at / 8, at % 8);
                let inside = (2..6).contains(&y) && if right { (5..7).contains(&x) } else { (1..3).contains(&x) };
                let fragile = if ((x + y) % 2 == 0) == right { 3.0 } else { -3.0 };
                values
                    .push(100.0 + if inside { 30.0 } else { 0.0 } + fragile + generator.random_range(-20.0_f32..20.0));
            }
            labels.push(Label::Class(usize::from(right)));
        }
        (Samples::new(values, &[1, 8, 8]).unwrap(), labels)
    }

    impl Problem {
        pub(crate) fn new() -> Self {
            let domain = Domain::grey_levels(&[1, 8, 8], 255.0).unwrap();
            let class_names = vec!["left".to_owned(), "right".to_owned()];
            let (samples, labels) = draw(192, 1);
            let (held_out, truth) = draw(64, 2);
            Self {
                samples,
                labels,
                held_out,
                truth,
                threat: ThreatModel::new(Norm::Linf, 8.0, domain.clone()).unwrap(),
                spec: ModelSpec { domain, task: Task::MultiClass { classes: 2 }, class_names },
                config: TrainingConfig { epochs: 6, batch_size: 16, learning_rate: 3e-3, ..TrainingConfig::default() },
            }
        }

        pub(crate) fn train_plainly(&self) -> Graph {
            let blueprint = Blueprint { spec: &self.spec, mean: &[105.0], standard_deviation: &[20.0], seed: Seed(3) };
            let graph = zoo::build("mlp", &blueprint).unwrap();
            let training = Training {
                config: &self.config,
                spec: &self.spec,
                device: &Device::default(),
                seed: Seed(4),
                freeze: None,
                perturb: None,
                score: &mut |_, epoch| Ok(epoch as f64),
                observe: &mut |_| {},
            };
            training.run(&graph, Labelled { samples: &self.samples, labels: &self.labels }).unwrap().graph
        }

        pub(crate) fn hardening<T>(&self, graph: &Graph, run: impl FnOnce(&Hardening<'_>) -> T) -> T {
            run(&Hardening {
                graph,
                spec: &self.spec,
                data: Labelled { samples: &self.samples, labels: &self.labels },
                validation: Labelled { samples: &self.held_out, labels: &self.truth },
                threat: &self.threat,
                config: &self.config,
                device: &Device::default(),
                freeze: None,
                seed: Seed(5),
            })
        }
    }

    /// Accuracy on held-out samples under a stronger PGD than training and checkpoints used.
    pub(crate) fn accuracy_under_pgd(problem: &Problem, graph: &Graph) -> f64 {
        let model = GraphModel::new(graph.clone(), problem.spec.clone(), &Device::default()).unwrap();
        let goal = Goal::Untargeted { labels: problem.truth.clone() };
        let attack = Pgd::try_from(PgdConfig { steps: 40, restarts: 2, ..PgdConfig::default() }).unwrap();
        let outcome = attack.run(&model, &problem.held_out, &goal, &problem.threat, Seed(9)).unwrap();
        1.0 - share(&outcome.success)
    }

    /// A judge that always wins and a one-step attack that does not: what a network that masks its gradient shows.
    #[test]
    fn a_gap_between_one_step_and_judge_raises_the_alarm() {
        struct Unbeatable;
        impl Attack for Unbeatable {
            fn info(&self) -> nocebo_core::AttackInfo {
                Pgd::INFO
            }

            fn perturb(
                &self,
                problem: &nocebo_core::AttackProblem<'_>,
            ) -> Result<nocebo_core::Perturbation, nocebo_core::Error> {
                Ok(nocebo_core::Perturbation {
                    inputs: problem.inputs.clone(),
                    success: vec![true; problem.inputs.len()],
                })
            }
        }
        let problem = Problem::new();
        let plain = problem.train_plainly();
        let mut alarms = 0;
        let threat = ThreatModel::new(Norm::Linf, 0.1, problem.spec.domain.clone()).unwrap();
        let problem = Problem { threat, config: TrainingConfig { epochs: 1, ..problem.config.clone() }, ..problem };
        let mut observe = |event| alarms += usize::from(matches!(event, HardeningEvent::CatastrophicOverfitting(_)));
        let keep = |_: &dyn DifferentiableModel, batch, labels, _| Ok((batch, labels));
        let hardened = problem.hardening(&plain, |hardening| hardening.run(&keep, &Unbeatable, &mut observe)).unwrap();
        assert_eq!((alarms, hardened.overfitting), (1, Some(1)));
        let judge = judge().unwrap();
        let calm = problem.hardening(&plain, |hardening| hardening.run(&keep, &judge, &mut |_| {})).unwrap();
        assert_eq!(calm.overfitting, None);
    }
}
