//! All attacks by name.

use serde::Serialize;
use serde::de::DeserializeOwned;

use nocebo_core::{Attack, AttackInfo, Error};

use crate::control::noise::{Noise, NoiseConfig};
use crate::gradient::auto_pgd::{AutoPgd, AutoPgdConfig};
use crate::gradient::auto_pgd_targeted::{AutoPgdTargeted, AutoPgdTargetedConfig};
use crate::gradient::basic_iterative::{BasicIterative, BasicIterativeConfig};
use crate::gradient::deep_fool::{DeepFool, DeepFoolConfig};
use crate::gradient::fast_gradient::{FastGradient, FastGradientConfig};
use crate::gradient::fast_gradient_value::{FastGradientValue, FastGradientValueConfig};
use crate::gradient::fine_fool::{FineFool, FineFoolConfig};
use crate::gradient::hot_cold::{HotCold, HotColdConfig};
use crate::gradient::iterative_least_likely::IterativeLeastLikely;
use crate::gradient::newton_fool::{NewtonFool, NewtonFoolConfig};
use crate::gradient::one_step_target::{OneStepTarget, OneStepTargetConfig};
use crate::gradient::pgd::{Pgd, PgdConfig};
use crate::gradient::random_start_fgsm::{RandomStartFgsm, RandomStartFgsmConfig};
use crate::gradient::saliency_map::{SaliencyMap, SaliencyMapConfig};
use crate::gradient::super_deep_fool::{SuperDeepFool, SuperDeepFoolConfig};
use crate::minimum_norm::augmented_lagrangian::{AugmentedLagrangian, AugmentedLagrangianConfig};
use crate::minimum_norm::box_lbfgs::{BoxLbfgs, BoxLbfgsConfig};
use crate::minimum_norm::carlini_wagner_l2::{CarliniWagnerL2, CarliniWagnerL2Config};
use crate::minimum_norm::decoupled_direction_norm::{DecoupledDirectionNorm, DecoupledDirectionNormConfig};
use crate::minimum_norm::elastic_net::{ElasticNet, ElasticNetConfig};
use crate::minimum_norm::fast_minimum_norm::{FastMinimumNorm, FastMinimumNormConfig};
use crate::minimum_norm::primal_dual::{PrimalDual, PrimalDualConfig};
use crate::minimum_norm::sigma_zero::{SigmaZero, SigmaZeroConfig};

/// One attack of the catalogue: what it is, and how it is made from settings.
struct Entry {
    info: AttackInfo,
    make: fn(toml::Table) -> Result<Made, Error>,
}

/// An attack with all its settings, the defaults included.
struct Made {
    attack: Box<dyn Attack>,
    settings: toml::Table,
}

const fn entry<A, C>(info: AttackInfo) -> Entry
where
    A: Attack + TryFrom<C, Error = Error> + 'static,
    C: DeserializeOwned + Serialize,
{
    Entry { info, make: make::<A, C> }
}

fn make<A, C>(settings: toml::Table) -> Result<Made, Error>
where
    A: Attack + TryFrom<C, Error = Error> + 'static,
    C: DeserializeOwned + Serialize,
{
    let refused = |reason: &dyn ToString| Error::unsupported("a setting of this attack", reason.to_string());
    let config: C = settings.try_into().map_err(|error: toml::de::Error| refused(&error.message()))?;
    let settings = toml::Table::try_from(&config).map_err(|error| refused(&error))?;
    Ok(Made { attack: Box::new(A::try_from(config)?), settings })
}

const CATALOGUE: &[Entry] = &[
    entry::<Noise, NoiseConfig>(Noise::INFO),
    entry::<FastGradient, FastGradientConfig>(FastGradient::INFO),
    entry::<OneStepTarget, OneStepTargetConfig>(OneStepTarget::INFO),
    entry::<BasicIterative, BasicIterativeConfig>(BasicIterative::INFO),
    entry::<IterativeLeastLikely, BasicIterativeConfig>(IterativeLeastLikely::INFO),
    entry::<RandomStartFgsm, RandomStartFgsmConfig>(RandomStartFgsm::INFO),
    entry::<Pgd, PgdConfig>(Pgd::INFO),
    entry::<AutoPgd, AutoPgdConfig>(AutoPgd::INFO),
    entry::<AutoPgdTargeted, AutoPgdTargetedConfig>(AutoPgdTargeted::INFO),
    entry::<DeepFool, DeepFoolConfig>(DeepFool::INFO),
    entry::<SuperDeepFool, SuperDeepFoolConfig>(SuperDeepFool::INFO),
    entry::<NewtonFool, NewtonFoolConfig>(NewtonFool::INFO),
    entry::<SaliencyMap, SaliencyMapConfig>(SaliencyMap::INFO),
    entry::<FastGradientValue, FastGradientValueConfig>(FastGradientValue::INFO),
    entry::<HotCold, HotColdConfig>(HotCold::INFO),
    entry::<FineFool, FineFoolConfig>(FineFool::INFO),
    // minimum norm
    entry::<BoxLbfgs, BoxLbfgsConfig>(BoxLbfgs::INFO),
    entry::<CarliniWagnerL2, CarliniWagnerL2Config>(CarliniWagnerL2::INFO),
    entry::<DecoupledDirectionNorm, DecoupledDirectionNormConfig>(DecoupledDirectionNorm::INFO),
    entry::<FastMinimumNorm, FastMinimumNormConfig>(FastMinimumNorm::INFO),
    entry::<SigmaZero, SigmaZeroConfig>(SigmaZero::INFO),
    entry::<ElasticNet, ElasticNetConfig>(ElasticNet::INFO),
    entry::<PrimalDual, PrimalDualConfig>(PrimalDual::INFO),
    entry::<AugmentedLagrangian, AugmentedLagrangianConfig>(AugmentedLagrangian::INFO),
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
    Ok((find(name)?.make)(settings)?.attack)
}

/// All settings of the attack with this name, those that are left out at their defaults.
///
/// # Errors
///
/// As [`build`].
pub fn resolve(name: &str, settings: toml::Table) -> Result<toml::Table, Error> {
    Ok((find(name)?.make)(settings)?.settings)
}

fn find(name: &str) -> Result<&'static Entry, Error> {
    CATALOGUE.iter().find(|entry| entry.info.name == name).ok_or_else(|| {
        let known = infos().map(|info| info.name).collect::<Vec<_>>().join(", ");
        Error::unsupported(format!("attack `{name}`"), format!("known attacks are {known}"))
    })
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
        assert_eq!(resolve("pgd", toml::toml! { steps = 3 }).unwrap()["restarts"].as_integer(), Some(1));
        let message = build("pdg", toml::Table::new()).err().unwrap().to_string();
        assert!(message.contains("`pdg`") && message.contains("pgd"), "{message}");
    }
}
