//! All attacks by name.

use serde::Serialize;
use serde::de::DeserializeOwned;

use nocebo_core::{Attack, AttackInfo, Error};

use crate::control::noise::{Noise, NoiseConfig};
use crate::decision::boundary::{Boundary, BoundaryConfig};
use crate::decision::geoda::{GeoDa, GeoDaConfig};
use crate::decision::hop_skip_jump::{HopSkipJump, HopSkipJumpConfig};
use crate::decision::rays::{RayS, RaySConfig};
use crate::decision::sign_opt::{SignOpt, SignOptConfig};
use crate::decision::surfree::{SurFree, SurFreeConfig};
use crate::gradient::basic_iterative::{BasicIterative, BasicIterativeConfig};
use crate::gradient::fast_gradient::{FastGradient, FastGradientConfig};
use crate::gradient::iterative_least_likely::IterativeLeastLikely;
use crate::gradient::one_step_target::{OneStepTarget, OneStepTargetConfig};
use crate::gradient::pgd::{Pgd, PgdConfig};
use crate::gradient::random_start_fgsm::{RandomStartFgsm, RandomStartFgsmConfig};
use crate::score::square::{Square, SquareConfig};

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
    entry::<Square, SquareConfig>(Square::INFO),
    entry::<HopSkipJump, HopSkipJumpConfig>(HopSkipJump::INFO),
    entry::<Boundary, BoundaryConfig>(Boundary::INFO),
    entry::<RayS, RaySConfig>(RayS::INFO),
    entry::<SignOpt, SignOptConfig>(SignOpt::INFO),
    entry::<SurFree, SurFreeConfig>(SurFree::INFO),
    entry::<GeoDa, GeoDaConfig>(GeoDa::INFO),
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
