//! All attacks by name.

use serde::Serialize;
use serde::de::DeserializeOwned;

use nocebo_core::{Attack, AttackInfo, Error};

use crate::control::additive_noise::{AdditiveNoise, AdditiveNoiseConfig};
use crate::control::contrast_reduction::{ContrastReduction, ContrastReductionConfig};
use crate::control::gaussian_blur::{GaussianBlur, GaussianBlurConfig};
use crate::control::noise::{Noise, NoiseConfig};
use crate::control::salt_and_pepper::{SaltAndPepper, SaltAndPepperConfig};
use crate::control::single_pixel::{SinglePixel, SinglePixelConfig};
use crate::decision::boundary::{Boundary, BoundaryConfig};
use crate::decision::geoda::{GeoDa, GeoDaConfig};
use crate::decision::hop_skip_jump::{HopSkipJump, HopSkipJumpConfig};
use crate::decision::rays::{RayS, RaySConfig};
use crate::decision::sign_opt::{SignOpt, SignOptConfig};
use crate::decision::surfree::{SurFree, SurFreeConfig};
use crate::fit::FitAttack;
use crate::frequency::low_frequency::{LowFrequency, LowFrequencyConfig};
use crate::frequency::vafa::{Vafa, VafaConfig};
use crate::generative::adv_gan::{AdvGan, AdvGanConfig};
use crate::generative::angri::{Angri, AngriConfig};
use crate::generative::atn::{Atn, AtnConfig};
use crate::generative::gap::{Gap, GapConfig};
use crate::generative::natural_gan::{NaturalGan, NaturalGanConfig};
use crate::generative::one_class::{OneClass, OneClassConfig};
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
use crate::minimum_norm::brendel_bethge::{BrendelBethge, BrendelBethgeConfig};
use crate::minimum_norm::carlini_wagner_l0::{CarliniWagnerL0, CarliniWagnerL0Config};
use crate::minimum_norm::carlini_wagner_l2::{CarliniWagnerL2, CarliniWagnerL2Config};
use crate::minimum_norm::carlini_wagner_linf::{CarliniWagnerLinf, CarliniWagnerLinfConfig};
use crate::minimum_norm::decoupled_direction_norm::{DecoupledDirectionNorm, DecoupledDirectionNormConfig};
use crate::minimum_norm::elastic_net::{ElasticNet, ElasticNetConfig};
use crate::minimum_norm::fab::{Fab, FabConfig};
use crate::minimum_norm::fast_minimum_norm::{FastMinimumNorm, FastMinimumNormConfig};
use crate::minimum_norm::primal_dual::{PrimalDual, PrimalDualConfig};
use crate::minimum_norm::sigma_zero::{SigmaZero, SigmaZeroConfig};
use crate::minimum_norm::targeted_fab::{TargetedFab, TargetedFabConfig};
use crate::physical::adv_cam::{AdvCam, AdvCamConfig};
use crate::physical::eot::{Eot, EotConfig};
use crate::physical::masked_patch::{MaskedPatch, MaskedPatchConfig};
use crate::physical::robust_momentum::{RobustMomentum, RobustMomentumConfig};
use crate::physical::rp2::{Rp2, Rp2Config};
use crate::score::square::{Square, SquareConfig};
use crate::spatial::affine::{AffineAttack, AffineAttackConfig};
use crate::spatial::deformation::{Deformation, DeformationConfig};
use crate::spatial::st_adv::{StAdv, StAdvConfig};
use crate::transfer::admix::{Admix, AdmixConfig};
use crate::transfer::di_fgsm::{DiFgsm, DiFgsmConfig};
use crate::transfer::emi_fgsm::{EmiFgsm, EmiFgsmConfig};
use crate::transfer::ensemble_attack::{EnsembleAttack, EnsembleAttackConfig};
use crate::transfer::mi_fgsm::{MiFgsm, MiFgsmConfig};
use crate::transfer::ni_fgsm::NiFgsm;
use crate::transfer::si_ni_fgsm::{SiNiFgsm, SiNiFgsmConfig};
use crate::transfer::substitute::{Substitute, SubstituteConfig};
use crate::transfer::ti_fgsm::{TiFgsm, TiFgsmConfig};
use crate::transfer::transformed_gradient::{TransformedGradient, TransformedGradientConfig};
use crate::transfer::vmi_fgsm::{VmiFgsm, VmiFgsmConfig};
use crate::universal::medical_uap::{MedicalUap, MedicalUapConfig};
use crate::universal::patch::{Patch, PatchConfig};
use crate::universal::sgd_uap::{SgdUap, SgdUapConfig};
use crate::universal::uap::{Uap, UapConfig};
use crate::universal::upset::{Upset, UpsetConfig};

/// One attack of the catalogue: what it is, and how it is made from settings.
struct Entry<A: ?Sized> {
    info: AttackInfo,
    make: fn(toml::Table) -> Result<Made<A>, Error>,
}

/// An attack with all its settings, the defaults included.
struct Made<A: ?Sized> {
    attack: Box<A>,
    settings: toml::Table,
}

const fn entry<A, C>(info: AttackInfo) -> Entry<dyn Attack>
where
    A: Attack + TryFrom<C, Error = Error> + 'static,
    C: DeserializeOwned + Serialize,
{
    Entry { info, make: |settings| make(settings, |config: C| Ok(Box::new(A::try_from(config)?) as Box<dyn Attack>)) }
}

const fn fit_entry<A, C>(info: AttackInfo) -> Entry<dyn FitAttack>
where
    A: FitAttack + TryFrom<C, Error = Error> + 'static,
    C: DeserializeOwned + Serialize,
{
    Entry {
        info,
        make: |settings| make(settings, |config: C| Ok(Box::new(A::try_from(config)?) as Box<dyn FitAttack>)),
    }
}

fn make<A, C>(settings: toml::Table, check: impl FnOnce(C) -> Result<Box<A>, Error>) -> Result<Made<A>, Error>
where
    A: ?Sized,
    C: DeserializeOwned + Serialize,
{
    let refused = |reason: &dyn ToString| Error::unsupported("a setting of this attack", reason.to_string());
    let config: C = settings.try_into().map_err(|error: toml::de::Error| refused(&error.message()))?;
    let settings = toml::Table::try_from(&config).map_err(|error| refused(&error))?;
    Ok(Made { attack: check(config)?, settings })
}

const CATALOGUE: &[Entry<dyn Attack>] = &[
    entry::<Noise, NoiseConfig>(Noise::INFO),
    entry::<AdditiveNoise, AdditiveNoiseConfig>(AdditiveNoise::INFO),
    entry::<SaltAndPepper, SaltAndPepperConfig>(SaltAndPepper::INFO),
    entry::<GaussianBlur, GaussianBlurConfig>(GaussianBlur::INFO),
    entry::<ContrastReduction, ContrastReductionConfig>(ContrastReduction::INFO),
    entry::<SinglePixel, SinglePixelConfig>(SinglePixel::INFO),
    // gradient
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
    // frequency
    entry::<LowFrequency, LowFrequencyConfig>(LowFrequency::INFO),
    entry::<Vafa, VafaConfig>(Vafa::INFO),
    // minimum norm
    entry::<BoxLbfgs, BoxLbfgsConfig>(BoxLbfgs::INFO),
    entry::<CarliniWagnerL2, CarliniWagnerL2Config>(CarliniWagnerL2::INFO),
    entry::<CarliniWagnerL0, CarliniWagnerL0Config>(CarliniWagnerL0::INFO),
    entry::<CarliniWagnerLinf, CarliniWagnerLinfConfig>(CarliniWagnerLinf::INFO),
    entry::<DecoupledDirectionNorm, DecoupledDirectionNormConfig>(DecoupledDirectionNorm::INFO),
    entry::<FastMinimumNorm, FastMinimumNormConfig>(FastMinimumNorm::INFO),
    entry::<SigmaZero, SigmaZeroConfig>(SigmaZero::INFO),
    entry::<Fab, FabConfig>(Fab::INFO),
    entry::<TargetedFab, TargetedFabConfig>(TargetedFab::INFO),
    entry::<BrendelBethge, BrendelBethgeConfig>(BrendelBethge::INFO),
    entry::<ElasticNet, ElasticNetConfig>(ElasticNet::INFO),
    entry::<PrimalDual, PrimalDualConfig>(PrimalDual::INFO),
    entry::<AugmentedLagrangian, AugmentedLagrangianConfig>(AugmentedLagrangian::INFO),
    // score
    entry::<Square, SquareConfig>(Square::INFO),
    // decision
    entry::<HopSkipJump, HopSkipJumpConfig>(HopSkipJump::INFO),
    entry::<Boundary, BoundaryConfig>(Boundary::INFO),
    entry::<RayS, RaySConfig>(RayS::INFO),
    entry::<SignOpt, SignOptConfig>(SignOpt::INFO),
    entry::<SurFree, SurFreeConfig>(SurFree::INFO),
    entry::<GeoDa, GeoDaConfig>(GeoDa::INFO),
    // transfer
    entry::<MiFgsm, MiFgsmConfig>(MiFgsm::INFO),
    entry::<NiFgsm, MiFgsmConfig>(NiFgsm::INFO),
    entry::<SiNiFgsm, SiNiFgsmConfig>(SiNiFgsm::INFO),
    entry::<EmiFgsm, EmiFgsmConfig>(EmiFgsm::INFO),
    entry::<TransformedGradient, TransformedGradientConfig>(TransformedGradient::INFO),
    entry::<DiFgsm, DiFgsmConfig>(DiFgsm::INFO),
    entry::<TiFgsm, TiFgsmConfig>(TiFgsm::INFO),
    entry::<VmiFgsm, VmiFgsmConfig>(VmiFgsm::INFO),
    entry::<EnsembleAttack, EnsembleAttackConfig>(EnsembleAttack::INFO),
    // spatial
    entry::<StAdv, StAdvConfig>(StAdv::INFO),
    entry::<AffineAttack, AffineAttackConfig>(AffineAttack::INFO),
    entry::<Deformation, DeformationConfig>(Deformation::INFO),
    // physical
    entry::<Eot, EotConfig>(Eot::INFO),
    entry::<Rp2, Rp2Config>(Rp2::INFO),
    entry::<MaskedPatch, MaskedPatchConfig>(MaskedPatch::INFO),
    entry::<AdvCam, AdvCamConfig>(AdvCam::INFO),
    entry::<RobustMomentum, RobustMomentumConfig>(RobustMomentum::INFO),
];

/// Attacks that learn from samples first.
const FIT_CATALOGUE: &[Entry<dyn FitAttack>] = &[
    // transfer
    fit_entry::<Admix, AdmixConfig>(Admix::INFO),
    fit_entry::<Substitute, SubstituteConfig>(Substitute::INFO),
    // universal
    fit_entry::<Uap, UapConfig>(Uap::INFO),
    fit_entry::<MedicalUap, MedicalUapConfig>(MedicalUap::INFO),
    fit_entry::<SgdUap, SgdUapConfig>(SgdUap::INFO),
    fit_entry::<Upset, UpsetConfig>(Upset::INFO),
    fit_entry::<Patch, PatchConfig>(Patch::INFO),
    // generative
    fit_entry::<Atn, AtnConfig>(Atn::INFO),
    fit_entry::<Angri, AngriConfig>(Angri::INFO),
    fit_entry::<AdvGan, AdvGanConfig>(AdvGan::INFO),
    fit_entry::<NaturalGan, NaturalGanConfig>(NaturalGan::INFO),
    fit_entry::<OneClass, OneClassConfig>(OneClass::INFO),
    fit_entry::<Gap, GapConfig>(Gap::INFO),
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
    if learns(name) {
        return Err(Error::unsupported(format!("attack `{name}` here"), "it must learn from samples first"));
    }
    Ok((find(CATALOGUE, name)?.make)(settings)?.attack)
}

/// All settings of the attack with this name, those that are left out at their defaults; of either kind.
///
/// # Errors
///
/// As [`build`].
pub fn resolve(name: &str, settings: toml::Table) -> Result<toml::Table, Error> {
    if learns(name) {
        Ok((find(FIT_CATALOGUE, name)?.make)(settings)?.settings)
    } else {
        Ok((find(CATALOGUE, name)?.make)(settings)?.settings)
    }
}

/// Whether the attack of this name must learn from samples first.
pub fn learns(name: &str) -> bool {
    fit_infos().any(|info| info.name == name)
}

/// What each attack that learns from samples first is, in the order of the catalogue.
pub fn fit_infos() -> impl Iterator<Item = AttackInfo> {
    FIT_CATALOGUE.iter().map(|entry| entry.info)
}

/// The attack of this name that learns from samples first; settings that are left out have their defaults.
///
/// # Errors
///
/// As [`build`].
///
/// ```
/// let admix = nocebo_attacks::build_fit("admix", toml::toml! { steps = 20 })?;
/// assert_eq!(admix.info().family, "transfer");
/// # Ok::<(), nocebo_core::Error>(())
/// ```
pub fn build_fit(name: &str, settings: toml::Table) -> Result<Box<dyn FitAttack>, Error> {
    Ok((find(FIT_CATALOGUE, name)?.make)(settings)?.attack)
}

fn find<A: ?Sized>(catalogue: &'static [Entry<A>], name: &str) -> Result<&'static Entry<A>, Error> {
    catalogue.iter().find(|entry| entry.info.name == name).ok_or_else(|| {
        let known = infos().chain(fit_infos()).map(|info| info.name).collect::<Vec<_>>().join(", ");
        Error::unsupported(format!("attack `{name}`"), format!("known attacks are {known}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Goal, Label, Norm, Seed, ThreatModel};
    use nocebo_testkit::suite;
    use std::collections::BTreeSet;

    #[test]
    fn every_attack_bears_a_segmentation_or_refuses_it() {
        let (model, samples) = (suite::linear_segmentation(), suite::ct_samples().select(&[0, 1]));
        let targets: Vec<Label> = suite::decided(&model, &samples);
        let inverted = |label: &Label| match label {
            Label::Mask(mask) => Label::Mask(mask.iter().map(|class| 1 - class).collect()),
            other => other.clone(),
        };
        let labels: Vec<Label> = targets.iter().map(inverted).collect();
        let goals = [
            Goal::Untargeted { labels: targets.clone() },
            Goal::Targeted { labels: targets, targets: labels },
            Goal::FalseNegative { finding: 1 },
        ];
        let mut reached = BTreeSet::new();
        for info in infos() {
            let norm = *info.norms.last().unwrap();
            let epsilon = if norm == Norm::Linf { 250.0 } else { 900.0 };
            let threat = ThreatModel::new(norm, epsilon, suite::ct_domain()).unwrap().with_query_limit(200);
            let attack = build(info.name, toml::Table::new()).unwrap();
            for goal in &goals {
                match attack.run(&model, &samples, goal, &threat, Seed(1)) {
                    Ok(outcome) if outcome.success.iter().all(|success| *success) => drop(reached.insert(info.name)),
                    Ok(_) | Err(Error::Unsupported { .. }) => {}
                    Err(error) => panic!("{}: {error}", info.name),
                }
            }
        }
        for name in ["fgsm", "bim", "pgd", "apgd", "square", "mi-fgsm", "boundary"] {
            assert!(reached.contains(name), "{name} is not among {reached:?}");
        }
        let refused = |name: &str| {
            let attack = build(name, toml::Table::new()).unwrap();
            let threat = ThreatModel::new(attack.info().norms[0], 250.0, suite::ct_domain()).unwrap();
            attack.run(&model, &samples, &goals[0], &threat, Seed(1)).unwrap_err().to_string()
        };
        for name in ["deepfool", "apgd-t", "illc"] {
            assert!(refused(name).contains("not supported"), "{name}");
        }
    }

    #[test]
    fn names_are_unique_and_every_default_builds() {
        let names: BTreeSet<_> = infos().chain(fit_infos()).map(|info| info.name).collect();
        assert_eq!(names.len(), CATALOGUE.len() + FIT_CATALOGUE.len());
        for info in infos() {
            assert_eq!(build(info.name, toml::Table::new()).unwrap().info(), info);
            assert!(resolve(info.name, toml::Table::new()).is_ok());
        }
        for info in fit_infos() {
            assert_eq!(build_fit(info.name, toml::Table::new()).unwrap().info(), info);
            assert!(resolve(info.name, toml::Table::new()).is_ok());
        }
        assert_eq!(resolve("pgd", toml::toml! { steps = 3 }).unwrap()["restarts"].as_integer(), Some(1));
        let message = build("pdg", toml::Table::new()).err().unwrap().to_string();
        assert!(message.contains("`pdg`") && message.contains("pgd") && message.contains("uap"), "{message}");
        let message = build("uap", toml::Table::new()).err().unwrap().to_string();
        assert!(message.contains("learn"), "{message}");
    }
}
