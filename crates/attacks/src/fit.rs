//! Attacks that learn from a set of samples before they are used on others.

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, DifferentiableModel, Error, Goal, Oracle, Samples, Seed, ThreatModel,
};

/// An attack that must first learn from samples: one perturbation or one patch for all, or a pool to mix from.
///
/// What it learned is an [`Attack`] on any samples of the same domain. The samples that it learns from should not be
/// those that it is judged by.
pub trait FitAttack: Send + Sync {
    /// What the learned attack is.
    fn info(&self) -> AttackInfo;

    /// Learns from the problem. Called by [`FitAttack::fit`], which has checked it; there is at least one sample.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a goal, task or shape the attack cannot bear, and whatever the model returns.
    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error>;

    /// Learns from `samples` how to reach `goal` within `threat`.
    ///
    /// The query limit of the threat model is for the samples that are attacked later, not for these.
    ///
    /// # Errors
    ///
    /// When there is no sample, shapes, bounds or labels do not fit, and whatever the attack or the model returns.
    fn fit(
        &self,
        model: &dyn DifferentiableModel,
        samples: &Samples,
        goal: &Goal,
        threat: &ThreatModel,
        seed: Seed,
    ) -> Result<Box<dyn Attack>, Error> {
        let info = self.info();
        if !info.norms.contains(&threat.norm()) {
            return Err(Error::unsupported(
                format!("{} in {}", info.name, threat.norm()),
                format!("it works in {:?}", info.norms),
            ));
        }
        if samples.is_empty() {
            return Err(Error::mismatch("samples to learn from", "at least 1", 0));
        }
        if model.spec().domain.shape() != threat.domain().shape() {
            let shapes = (format!("{:?}", model.spec().domain.shape()), format!("{:?}", threat.domain().shape()));
            return Err(Error::mismatch("shape of a sample", shapes.0, shapes.1));
        }
        threat.domain().check(samples)?;
        goal.check(&model.spec().task, samples.len())?;
        let oracle = Oracle::new(model, None);
        let threat = &threat.clone().finite();
        self.learn(&AttackProblem { oracle: &oracle, inputs: samples, goal, threat, seed: seed.named(info.name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::admix::{Admix, AdmixConfig};
    use nocebo_core::Norm;
    use nocebo_testkit::suite;

    #[test]
    fn a_set_that_does_not_fit_is_refused() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let admix = Admix::try_from(AdmixConfig::default()).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = |norm| ThreatModel::new(norm, 10.0, suite::ct_domain()).unwrap();
        let fit = |samples: &Samples, norm| admix.fit(&model, samples, &goal, &threat(norm), Seed(1));
        assert!(fit(&samples, Norm::Linf).is_ok());
        assert!(fit(&samples, Norm::L0).is_err());
        assert!(fit(&samples.select(&[]), Norm::Linf).is_err());
        assert!(fit(&samples.select(&[1]), Norm::Linf).is_err());
        let outside = Samples::new(vec![9999.0; 12 * 8], &[1, 3, 4]).unwrap();
        assert!(matches!(fit(&outside, Norm::Linf), Err(Error::OutOfBounds { .. })));
    }
}
