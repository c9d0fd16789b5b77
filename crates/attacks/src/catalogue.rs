//! All attacks by name.

use serde::de::DeserializeOwned;

use nocebo_core::{Attack, AttackInfo, Error};

use crate::control::noise::Noise;
use crate::gradient::{
    basic_iterative::BasicIterative, fast_gradient::FastGradient, iterative_least_likely::IterativeLeastLikely,
    one_step_target::OneStepTarget, pgd::Pgd, random_start_fgsm::RandomStartFgsm,
};
use crate::minimum_norm::{
    augmented_lagrangian::AugmentedLagrangian, box_lbfgs::BoxLbfgs, brendel_bethge::BrendelBethge,
    carlini_wagner_l0::CarliniWagnerL0, carlini_wagner_l2::CarliniWagnerL2, carlini_wagner_linf::CarliniWagnerLinf,
    decoupled_direction_norm::DecoupledDirectionNorm, elastic_net::ElasticNet, fab::Fab,
    fast_minimum_norm::FastMinimumNorm, primal_dual::PrimalDual, sigma_zero::SigmaZero, targeted_fab::TargetedFab,
};

/// One attack of the catalogue: what it is, and how it is made from settings.
struct Entry {
    info: AttackInfo,
    make: fn(toml::Table) -> Result<Box<dyn Attack>, toml::de::Error>,
}

fn make<A: Attack + DeserializeOwned + 'static>(settings: toml::Table) -> Result<Box<dyn Attack>, toml::de::Error> {
    settings.try_into::<A>().map(|attack| Box::new(attack) as Box<dyn Attack>)
}

const CATALOGUE: &[Entry] = &[
    Entry { info: Noise::INFO, make: make::<Noise> },
    Entry { info: FastGradient::INFO, make: make::<FastGradient> },
    Entry { info: OneStepTarget::INFO, make: make::<OneStepTarget> },
    Entry { info: BasicIterative::INFO, make: make::<BasicIterative> },
    Entry { info: IterativeLeastLikely::INFO, make: make::<IterativeLeastLikely> },
    Entry { info: RandomStartFgsm::INFO, make: make::<RandomStartFgsm> },
    Entry { info: Pgd::INFO, make: make::<Pgd> },
    // minimum norm
    Entry { info: BoxLbfgs::INFO, make: make::<BoxLbfgs> },
    Entry { info: CarliniWagnerL2::INFO, make: make::<CarliniWagnerL2> },
    Entry { info: CarliniWagnerL0::INFO, make: make::<CarliniWagnerL0> },
    Entry { info: CarliniWagnerLinf::INFO, make: make::<CarliniWagnerLinf> },
    Entry { info: DecoupledDirectionNorm::INFO, make: make::<DecoupledDirectionNorm> },
    Entry { info: FastMinimumNorm::INFO, make: make::<FastMinimumNorm> },
    Entry { info: SigmaZero::INFO, make: make::<SigmaZero> },
    Entry { info: Fab::INFO, make: make::<Fab> },
    Entry { info: TargetedFab::INFO, make: make::<TargetedFab> },
    Entry { info: BrendelBethge::INFO, make: make::<BrendelBethge> },
    Entry { info: ElasticNet::INFO, make: make::<ElasticNet> },
    Entry { info: PrimalDual::INFO, make: make::<PrimalDual> },
    Entry { info: AugmentedLagrangian::INFO, make: make::<AugmentedLagrangian> },
];

/// What each attack is, in the order of the catalogue.
pub fn infos() -> impl Iterator<Item = AttackInfo> {
    CATALOGUE.iter().map(|entry| entry.info)
}

/// The attack with this name and these settings; settings that are left out have their defaults.
///
/// # Errors
///
/// When there is no such attack, or a setting is unknown or out of range.
///
/// ```
/// let attack = nocebo_attacks::build("pgd", toml::toml! { steps = 20 })?;
/// assert_eq!(attack.info().title, "Projected gradient descent");
/// assert!(nocebo_attacks::build("pgd", toml::toml! { stepz = 20 }).is_err());
/// # Ok::<(), nocebo_core::Error>(())
/// ```
pub fn build(name: &str, settings: toml::Table) -> Result<Box<dyn Attack>, Error> {
    let Some(entry) = CATALOGUE.iter().find(|entry| entry.info.name == name) else {
        let known = infos().map(|info| info.name).collect::<Vec<_>>().join(", ");
        return Err(Error::unsupported(format!("attack `{name}`"), format!("known attacks are {known}")));
    };
    (entry.make)(settings).map_err(|error| Error::unsupported(format!("these settings of `{name}`"), error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_default_builds() {
        let names: BTreeSet<_> = infos().map(|info| info.name).collect();
        assert_eq!(names.len(), CATALOGUE.len());
        for name in names {
            assert_eq!(build(name, toml::Table::new()).unwrap().info().name, name);
        }
        let message = build("pdg", toml::Table::new()).err().unwrap().to_string();
        assert!(message.contains("`pdg`") && message.contains("pgd"), "{message}");
    }
}
