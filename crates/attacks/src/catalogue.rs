//! All attacks by name.

use serde::de::DeserializeOwned;

use nocebo_core::{Attack, AttackInfo, Error};

use crate::control::noise::Noise;
use crate::fit::FitAttack;
use crate::gradient::{
    basic_iterative::BasicIterative, fast_gradient::FastGradient, iterative_least_likely::IterativeLeastLikely,
    one_step_target::OneStepTarget, pgd::Pgd, random_start_fgsm::RandomStartFgsm,
};
use crate::transfer::{
    admix::Admix, di_fgsm::DiFgsm, emi_fgsm::EmiFgsm, ensemble_attack::EnsembleAttack, mi_fgsm::MiFgsm,
    ni_fgsm::NiFgsm, si_ni_fgsm::SiNiFgsm, ti_fgsm::TiFgsm, transformed_gradient::TransformedGradient,
    vmi_fgsm::VmiFgsm,
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
    // transfer
    Entry { info: MiFgsm::INFO, make: make::<MiFgsm> },
    Entry { info: NiFgsm::INFO, make: make::<NiFgsm> },
    Entry { info: SiNiFgsm::INFO, make: make::<SiNiFgsm> },
    Entry { info: EmiFgsm::INFO, make: make::<EmiFgsm> },
    Entry { info: TransformedGradient::INFO, make: make::<TransformedGradient> },
    Entry { info: DiFgsm::INFO, make: make::<DiFgsm> },
    Entry { info: TiFgsm::INFO, make: make::<TiFgsm> },
    Entry { info: VmiFgsm::INFO, make: make::<VmiFgsm> },
    Entry { info: EnsembleAttack::INFO, make: make::<EnsembleAttack> },
];

/// One attack that learns from samples first.
struct FitEntry {
    info: AttackInfo,
    make: fn(toml::Table) -> Result<Box<dyn FitAttack>, toml::de::Error>,
}

fn make_fit<A>(settings: toml::Table) -> Result<Box<dyn FitAttack>, toml::de::Error>
where
    A: FitAttack + DeserializeOwned + 'static,
{
    settings.try_into::<A>().map(|attack| Box::new(attack) as Box<dyn FitAttack>)
}

const FIT_CATALOGUE: &[FitEntry] = &[
    // transfer
    FitEntry { info: Admix::INFO, make: make_fit::<Admix> },
];

/// What each attack that learns from samples first is, in the order of the catalogue.
pub fn fit_infos() -> impl Iterator<Item = AttackInfo> {
    FIT_CATALOGUE.iter().map(|entry| entry.info)
}

/// The attack of this name that learns from samples first, with these settings.
///
/// # Errors
///
/// As [`build`].
pub fn build_fit(name: &str, settings: toml::Table) -> Result<Box<dyn FitAttack>, Error> {
    let Some(entry) = FIT_CATALOGUE.iter().find(|entry| entry.info.name == name) else {
        let known = fit_infos().map(|info| info.name).collect::<Vec<_>>().join(", ");
        return Err(Error::unsupported(format!("fitted attack `{name}`"), format!("known ones are {known}")));
    };
    (entry.make)(settings).map_err(|error| Error::unsupported(format!("these settings of `{name}`"), error.message()))
}

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
        let names: BTreeSet<_> = infos().chain(fit_infos()).map(|info| info.name).collect();
        assert_eq!(names.len(), CATALOGUE.len() + FIT_CATALOGUE.len());
        for info in infos() {
            assert_eq!(build(info.name, toml::Table::new()).unwrap().info(), info);
        }
        for info in fit_infos() {
            assert_eq!(build_fit(info.name, toml::Table::new()).unwrap().info(), info);
        }
        let message = build("pdg", toml::Table::new()).err().unwrap().to_string();
        assert!(message.contains("`pdg`") && message.contains("pgd"), "{message}");
    }
}
