//! Expectation over transformation (EOT): any attack, against the mean over random transformations.
//!
//! ```text
//! the attack sees   outputs E_t[f(t(x))]   and   gradients E_t[∇ₓL(f(t(x)))],   t drawn anew at every call
//! ```
//!
//! It is how an attack is made to survive rotation, light and noise, and also how a randomised defence is attacked: then
//! the transformations are the defence's own.
//!
//! Source: Athalye, Engstrom, Ilyas & Kwok, ICML 2018, arXiv:1707.07397, section 2. Survey: \[7\].
//!
//! Differs from the source: the distance of colours that the paper penalises is the threat model's ball here; success is
//! claimed only where the untransformed sample reaches the goal too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{ActiveSet, Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

use crate::gradient::search::look;
use crate::transformation::{Randomised, Transformations};

/// Settings of [`Eot`].
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EotConfig {
    /// Name of the attack in the catalogue.
    pub attack: String,
    /// Transformations drawn for each of its queries; at least 1.
    pub draws: usize,
    /// What may be drawn.
    pub transformations: Transformations,
    /// Settings of the attack.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub settings: toml::Table,
}

impl Default for EotConfig {
    /// The paper's planar distribution; ten draws are ours.
    fn default() -> Self {
        Self {
            attack: "pgd".to_owned(),
            draws: 10,
            transformations: Transformations::planar(),
            settings: toml::Table::new(),
        }
    }
}

/// An attack behind transformations; holds only settings that have been checked.
pub struct Eot {
    attack: Box<dyn Attack>,
    draws: u32,
    transformations: Transformations,
}

impl TryFrom<EotConfig> for Eot {
    type Error = Error;

    fn try_from(config: EotConfig) -> Result<Self, Error> {
        let attack = crate::catalogue::build(&config.attack, config.settings)?;
        Self::new(attack, config.transformations, config.draws)
    }
}

impl Eot {
    /// What this attack is; its norms and needs are those of the attack that it wraps.
    pub const INFO: AttackInfo = AttackInfo {
        name: "eot",
        title: "Expectation over transformation",
        source: "Athalye et al. 2018, arXiv:1707.07397",
        family: "physical",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "draws · those of the attack, 1 query",
        minimum_norm: false,
    };

    /// `attack` against means over `draws` transformations.
    ///
    /// # Errors
    ///
    /// When there is no draw, or more than a million.
    pub fn new(attack: Box<dyn Attack>, transformations: Transformations, draws: usize) -> Result<Self, Error> {
        match u32::try_from(draws) {
            Ok(draws @ 1..=1_000_000) => Ok(Self { attack, draws, transformations }),
            _ => Err(Error::invalid("draws", "1 to 1000000", draws)),
        }
    }
}

impl Attack for Eot {
    fn info(&self) -> AttackInfo {
        let inner = self.attack.info();
        AttackInfo { norms: inner.norms, knowledge: inner.knowledge, minimum_norm: inner.minimum_norm, ..Self::INFO }
    }

    /// Costs `draws` times the queries of the attack, and one more a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let seed = problem.seed.named("transformations");
        let model = Randomised::new(problem.oracle, &self.transformations, self.draws as usize, seed)?;
        let mut threat = problem.threat.clone();
        if threat.query_limit().is_some() {
            let left = problem.inputs.indices().iter().map(|&sample| problem.oracle.remaining(sample)).min();
            threat = threat.with_query_limit(left.unwrap_or(0).saturating_sub(1) / self.draws);
        }
        let points = self.attack.run(&model, problem.inputs, problem.goal, &threat, problem.seed)?.perturbed_inputs;
        let mut active = ActiveSet::new(problem);
        look(problem, &mut active, &points)?;
        Ok(active.finish(&points))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient::pgd::{Pgd, PgdConfig};
    use crate::physical::print_scan::success_under;
    use crate::transformation::RandomTransformation;
    use nocebo_core::{Goal, Seed, ThreatModel};
    use nocebo_testkit::suite::{self, Strength};

    fn eot(transformations: Transformations, draws: usize) -> Eot {
        Eot::try_from(EotConfig { draws, transformations, ..EotConfig::default() }).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        let config = EotConfig {
            draws: 1,
            transformations: Transformations::default(),
            settings: toml::toml! { restarts = 2 },
            ..EotConfig::default()
        };
        let plain = Eot::try_from(config).unwrap();
        assert_eq!(suite::check(&plain, Strength { linear: 1.05, goals: true }), Ok(()));
        assert_eq!(suite::check_mechanics(&eot(Transformations::planar(), 3)), Ok(()));
    }

    #[test]
    fn survives_the_transformations_better_than_the_attack_alone() {
        let (model, samples) = (suite::small_relu(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 150.0, suite::ct_domain()).unwrap();
        let affine = RandomTransformation::Affine { rotation: 20.0, scale: [0.8, 1.2], shift: 0.1 };
        let transformations: Transformations = vec![affine].try_into().unwrap();
        let survival = |attack: &dyn Attack| {
            let points = attack.run(&model, &samples, &goal, &threat, Seed(3)).unwrap().perturbed_inputs;
            success_under(&model, &points, &goal, &transformations, 50, Seed(9)).unwrap().iter().sum::<f64>()
        };
        let alone = survival(&Pgd::try_from(PgdConfig::default()).unwrap());
        let expected = survival(&eot(transformations.clone(), 10));
        assert!(expected > alone + 0.5, "{expected} {alone}");
    }

    #[test]
    fn names_the_norms_of_the_attack_it_wraps() {
        let config = EotConfig { attack: "bim".to_owned(), ..EotConfig::default() };
        assert_eq!(Eot::try_from(config).unwrap().info().norms, [Norm::Linf]);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        let build = |text: &str| Eot::try_from(toml::from_str::<EotConfig>(text).ok()?).ok();
        for text in ["draw = 1", "draws = 0", "attack = \"pdg\"", "[settings]\nstepz = 3"] {
            assert!(build(text).is_none(), "{text}");
        }
        assert!(build("attack = \"mi-fgsm\"\ntransformations = []\n[settings]\nsteps = 3").is_some());
    }
}
