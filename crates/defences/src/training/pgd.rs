//! PGD adversarial training.
//!
//! ```text
//! minimise over θ   E max_{‖δ‖ ≤ ε} J(f_θ(x + δ), y)
//! ```
//!
//! The inner maximum is sought by PGD with every step taken, whether or not the sample is already wrong.
//!
//! Stage: training; the graph stays as it is, so the shipped model is exactly differentiable and not random.
//! Adaptive attack: none is needed beyond white-box attacks on the shipped model; tested with PGD of more steps and
//! restarts than in training (see the test below) and audited with the whole attack library.
//!
//! Source: Madry et al., ICLR 2018, arXiv:1706.06083. Survey: \[85\].
//!
//! Differs from the source: the checkpoint with the best *robust* validation accuracy is kept (Rice et al. 2020,
//! arXiv:2002.11569). During the inner maximisation batch norm stands at its running statistics.

use serde::{Deserialize, Serialize};

use nocebo_attacks::gradient::pgd::{Pgd, PgdConfig};
use nocebo_core::Goal;
use nocebo_graph::Error;

use super::{Hardened, Hardening, HardeningEvent, judge};

/// Settings of [`harden`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PgdTrainingConfig {
    /// Steps of the inner maximisation; at least 1.
    pub steps: usize,
    /// Step as a fraction of epsilon; finite and above 0.
    pub relative_step_size: f32,
}

impl Default for PgdTrainingConfig {
    /// The paper's for CIFAR-10: 7 steps of a quarter of epsilon.
    fn default() -> Self {
        Self { steps: 7, relative_step_size: 0.25 }
    }
}

/// Trains the network of `hardening` on PGD samples.
///
/// # Errors
///
/// Settings out of range, and as `Training::run`.
pub fn harden(
    hardening: &Hardening<'_>,
    config: PgdTrainingConfig,
    observe: &mut dyn FnMut(HardeningEvent),
) -> Result<Hardened, Error> {
    let PgdTrainingConfig { steps, relative_step_size } = config;
    let inner = Pgd::try_from(PgdConfig { steps, relative_step_size, ..PgdConfig::default() })?;
    hardening.run(
        &|model, batch, labels, seed| {
            let goal = Goal::Untargeted { labels: labels.clone() };
            Ok((inner.maximize(model, &batch, &goal, hardening.threat, seed)?, labels))
        },
        &judge()?,
        observe,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::tests::{Problem, accuracy_under_pgd};

    #[test]
    fn the_hardened_network_holds_where_the_plain_one_falls() {
        let problem = Problem::new();
        let plain = problem.train_plainly();
        let hardened = problem
            .hardening(&plain, |hardening| harden(hardening, PgdTrainingConfig::default(), &mut |_| {}))
            .unwrap();
        let (before, after) =
            (accuracy_under_pgd(&problem, &plain), accuracy_under_pgd(&problem, &hardened.trained.graph));
        assert!(after > before + 0.2, "before {before}, after {after}: {:?}", hardened.epochs);
        let best = &hardened.epochs[hardened.trained.best_epoch - 1];
        assert!(hardened.epochs.iter().all(|epoch| epoch.robust_accuracy <= best.robust_accuracy));
    }

    #[test]
    fn settings_without_a_step_are_refused() {
        let problem = Problem::new();
        let plain = problem.train_plainly();
        let config = PgdTrainingConfig { steps: 0, ..PgdTrainingConfig::default() };
        assert!(problem.hardening(&plain, |hardening| harden(hardening, config, &mut |_| {})).is_err());
    }
}
