//! Each defence that only looks robust triggers its finding, and honest networks trigger none.

#![expect(clippy::unwrap_used, reason = "a request that is refused is a failed test")]

use std::collections::BTreeMap;

use nocebo_audit::{
    AttackEntry, AuditData, AuditRequest, AuditSettings, CONTROL, Evaluation, Provenance, Status, Threat, evaluate,
};
use nocebo_core::{Attack, DifferentiableModel, Norm, Samples, Seed};
use nocebo_testkit::broken::{
    ClippedLogits, NanBranch, QuantisedInput, RandomisedInput, SaturatedSoftmax, StepCounter, SurrogateGradient,
};
use nocebo_testkit::suite::{ct_domain, decided, linear_classifier, linear_pair, small_relu};
use rand::RngExt;

/// Forty samples well inside the bounds of the domain.
fn samples(seed: u64) -> Samples {
    let values = (0..40).flat_map(|index| {
        let mut generator = Seed(seed).for_sample(index);
        (0..12).map(move |_| generator.random_range(-300.0_f32..300.0).round()).collect::<Vec<_>>()
    });
    Samples::new(values.collect(), &[1, 3, 4]).unwrap()
}

fn attack(name: &str, settings: toml::Table) -> AttackEntry {
    let resolved = serde_json::to_value(nocebo_attacks::resolve(name, settings.clone()).unwrap()).unwrap();
    let attack: Box<dyn Attack> = nocebo_attacks::build(name, settings).unwrap();
    AttackEntry::new(name, resolved, attack)
}

/// Audits a model whose decisions on the clean samples of `honest` are the truth.
fn audit(model: &dyn DifferentiableModel, honest: &dyn DifferentiableModel, seed: u64) -> Evaluation {
    let samples = samples(seed);
    let data = AuditData {
        name: "synthetic slices".to_owned(),
        labels: decided(honest, &samples),
        samples,
        domain: ct_domain(),
        patients: None,
        standard_deviation: None,
        groups: BTreeMap::new(),
        notes: Vec::new(),
    };
    let attacks = [
        attack("fgsm", toml::Table::new()),
        attack("pgd", toml::toml! { steps = 40 }),
        attack(CONTROL, toml::Table::new()),
    ];
    let settings = AuditSettings {
        seed: Seed(seed),
        ..AuditSettings::new(vec![Threat { norm: Norm::Linf, epsilons: vec![5.0, 20.0, 80.0] }])
    };
    let provenance = Provenance::default();
    let request = AuditRequest { model, data: &data, attacks: &attacks, settings: &settings, provenance: &provenance };
    evaluate(request, &()).unwrap()
}

fn failed(evaluation: &Evaluation) -> Vec<&str> {
    let failed = evaluation.audit.findings.iter().filter(|finding| finding.status == Status::Fail);
    failed.map(|finding| finding.id.as_str()).collect()
}

fn assert_found(model: &dyn DifferentiableModel, finding: &str) {
    let evaluation = audit(model, &small_relu(), 1);
    let failed = failed(&evaluation);
    assert!(failed.contains(&finding), "expected {finding} among {failed:?}");
}

#[test]
fn honest_networks_raise_no_finding() {
    for seed in 0..5 {
        for model in [&small_relu() as &dyn DifferentiableModel, &linear_classifier(), &linear_pair()] {
            let evaluation = audit(model, model, seed);
            assert_eq!(failed(&evaluation), [""; 0], "{:#?}", evaluation.audit.findings);
            assert!(evaluation.audit.evaluation_is_strong);
        }
    }
}

#[test]
fn a_shattered_gradient_is_found() {
    assert_found(&QuantisedInput { model: small_relu(), step: 8.0 }, "gradients_available");
}

#[test]
fn a_masked_gradient_is_found() {
    let model = SaturatedSoftmax { model: small_relu(), sharpness: 1e4 };
    assert_found(&model, "gradients_available");
    assert_found(&model, "outputs_are_logits");
}

#[test]
fn randomised_input_is_found() {
    assert_found(&RandomisedInput::new(small_relu(), 5.0), "answers_repeat");
}

#[test]
fn a_step_without_derivative_is_found() {
    let model = SurrogateGradient { model: small_relu(), threshold: 0.0, ends: (-150.0, 150.0) };
    assert_found(&model, "gradients_foretell_change");
}

#[test]
fn a_model_that_counts_steps_is_found() {
    assert_found(&StepCounter::new(small_relu(), 3), "iterative_beats_one_step");
}

#[test]
fn clipped_logits_are_found() {
    assert_found(&ClippedLogits { model: small_relu(), bound: 0.05 }, "gradients_available");
}

#[test]
fn a_branch_that_is_not_a_number_is_found() {
    // No clean sample has an element above 300.
    assert_found(&NanBranch { model: small_relu(), greatest: 320.0 }, "numbers_are_finite");
}
