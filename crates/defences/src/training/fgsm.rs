//! FGSM adversarial training.
//!
//! ```text
//! J̃(θ, x, y) = a·J(θ, x, y) + (1 − a)·J(θ, x + ε·sign ∇ₓJ(θ, x, y), y),   a = 1/2
//! ```
//!
//! Stage: training; the graph stays as it is, so the shipped model is exactly differentiable and not random.
//! Adaptive attack: PGD, which the alarm for catastrophic overfitting runs after every epoch: a network can learn to
//! fool the one-step attack alone (Wong et al. 2020, arXiv:2001.03994).
//!
//! Source: Goodfellow, Shlens & Szegedy, ICLR 2015, arXiv:1412.6572, section 6. Survey: \[42\].
//!
//! Differs from the source: a is fixed at 1/2, which makes the batch its clean and its perturbed samples side by side;
//! the checkpoint with the best *robust* validation accuracy is kept.

use nocebo_attacks::gradient::pgd::{Pgd, PgdConfig};
use nocebo_core::Goal;
use nocebo_graph::Error;

use super::{Hardened, Hardening, HardeningEvent, judge};

/// Trains the network of `hardening` on clean and FGSM samples.
///
/// # Errors
///
/// As `Training::run`.
pub fn harden(hardening: &Hardening<'_>, observe: &mut dyn FnMut(HardeningEvent)) -> Result<Hardened, Error> {
    let one_step = PgdConfig { steps: 1, relative_step_size: 1.0, random_start: false, ..PgdConfig::default() };
    let inner = Pgd::try_from(one_step)?;
    hardening.run(
        &|model, batch, labels, seed| {
            let goal = Goal::Untargeted { labels: labels.clone() };
            let perturbed = inner.maximize(model, &batch, &goal, hardening.threat, seed)?;
            let labels = [labels.as_slice(), labels.as_slice()].concat();
            Ok((batch.joined(&perturbed)?, labels))
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
        let hardened = problem.hardening(&plain, |hardening| harden(hardening, &mut |_| {})).unwrap();
        let (before, after) =
            (accuracy_under_pgd(&problem, &plain), accuracy_under_pgd(&problem, &hardened.trained.graph));
        assert!(after > before + 0.1, "before {before}, after {after}: {:?}", hardened.epochs);
    }
}
