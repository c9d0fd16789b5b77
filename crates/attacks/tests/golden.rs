//! Agreement with Foolbox and torchattacks on stored vectors (`tests/golden`, made by `bench/golden/pgd.py`).

#![expect(clippy::unwrap_used, reason = "a stored vector that cannot be read is a failed test")]

use std::path::Path;

use nocebo_attacks::build;
use nocebo_core::{Attack, Domain, DomainConfig, Field, Goal, Label, Norm, Samples, Seed, Task, ThreatModel, Unit};
use nocebo_testkit::models::{Linear, SmallRelu};
use safetensors::SafeTensors;

/// The stored arrays and parameters.
struct Golden {
    arrays: Vec<u8>,
    parameters: toml::Table,
}

impl Golden {
    fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let arrays = std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap();
        let parameters = std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
        Self { arrays, parameters: parameters.parse().unwrap() }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let arrays = SafeTensors::deserialize(&self.arrays).unwrap();
        let bytes = arrays.tensor(name).unwrap().data().to_vec();
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    }

    fn parameter(&self, name: &str) -> f32 {
        self.parameters[name].as_float().unwrap() as f32
    }

    fn labels(&self) -> Vec<Label> {
        let arrays = SafeTensors::deserialize(&self.arrays).unwrap();
        let bytes = arrays.tensor("labels").unwrap().data().to_vec();
        bytes
            .chunks_exact(8)
            .map(|eight| Label::Class(i64::from_le_bytes(eight.try_into().unwrap()) as usize))
            .collect()
    }
}

/// Samples between two bounds, stored as floats.
fn domain(features: usize, lower: f32, upper: f32) -> Domain {
    DomainConfig {
        shape: vec![features],
        unit: Unit::Other("unit".to_owned()),
        lower: Field::Uniform(lower),
        upper: Field::Uniform(upper),
        resolution: Field::Uniform(0.0),
        region: None,
    }
    .try_into()
    .unwrap()
}

fn network(golden: &Golden, inputs: Domain) -> SmallRelu {
    let features = inputs.elements();
    let rows =
        |name: &str, width: usize| golden.floats(name).chunks_exact(width).map(<[f32]>::to_vec).collect::<Vec<_>>();
    let (hidden, head) = (golden.floats("hidden.bias"), golden.floats("head.bias"));
    let hidden_domain = domain(hidden.len(), 0.0, 1.0);
    let units = hidden.len();
    SmallRelu::new(
        Linear::new(inputs, Task::MultiClass { classes: units }, rows("hidden.weight", features), hidden),
        Linear::new(hidden_domain, Task::MultiClass { classes: head.len() }, rows("head.weight", units), head),
    )
}

/// Each sample of `clean` against the peer's iterate at the step where nocebo stopped; the greatest difference.
fn compare(attack: &dyn Attack, norm: Norm, epsilon: f32, peer: &str, bounds: &str) -> f32 {
    let golden = Golden::open("pgd");
    let features = 24;
    let clean = Samples::new(golden.floats("clean"), &[features]).unwrap();
    let ends: Vec<f32> =
        golden.parameters[bounds].as_array().unwrap().iter().map(|end| end.as_float().unwrap() as f32).collect();
    let inputs = domain(features, ends[0], ends[1]);
    let model = network(&golden, inputs.clone());
    let goal = Goal::Untargeted { labels: golden.labels() };
    let threat = ThreatModel::new(norm, epsilon, inputs).unwrap();
    let outcome = attack.run(&model, &clean, &goal, &threat, Seed(0)).unwrap();

    let iterates = golden.floats(peer);
    let steps = iterates.len() / clean.values().len();
    let mut worst: f32 = 0.0;
    let mut held = 0;
    for row in 0..clean.len() {
        // The gradient that sees the goal reached takes no step.
        let gradients = outcome.queries[row].backward as usize;
        let stopped_by_a_gradient = gradients + 1 == outcome.queries[row].forward as usize;
        let taken = gradients - usize::from(stopped_by_a_gradient);
        held += usize::from(!outcome.success[row]);
        let start = ((taken - 1) * clean.len() + row) * features;
        let pairs = outcome.perturbed_inputs.row(row).iter().zip(&iterates[start..start + features]);
        worst = pairs.map(|(ours, theirs)| (ours - theirs).abs()).fold(worst, f32::max);
    }
    assert!(0 < held && held < clean.len() && taken_all(&outcome, steps), "{peer}: {held} samples hold");
    worst
}

/// Whether the samples that hold took every step.
fn taken_all(outcome: &nocebo_core::AttackOutcome, steps: usize) -> bool {
    let held = outcome.success.iter().zip(&outcome.queries).filter(|(success, _)| !**success);
    held.into_iter().all(|(_, queries)| queries.backward as usize == steps)
}

fn pgd(golden: &Golden, epsilon: f32, step: f32) -> Box<dyn Attack> {
    let steps = golden.parameters["steps"].as_integer().unwrap();
    let relative = f64::from(step) / f64::from(epsilon);
    build("pgd", toml::toml! { random_start = false steps = steps relative_step_size = relative }).unwrap()
}

#[test]
fn linf_pgd_agrees_with_both_peers() {
    let golden = Golden::open("pgd");
    let (epsilon, step) = (golden.parameter("epsilon_linf"), golden.parameter("step_linf"));
    for peer in ["foolbox_linf", "torchattacks_linf"] {
        let worst = compare(&*pgd(&golden, epsilon, step), Norm::Linf, epsilon, peer, "bounds_linf");
        assert!(worst <= 1e-6, "{peer}: {worst}");
    }
}

#[test]
fn l2_pgd_agrees_with_foolbox() {
    let golden = Golden::open("pgd");
    let (epsilon, step) = (golden.parameter("epsilon_l2"), golden.parameter("step_l2"));
    let worst = compare(&*pgd(&golden, epsilon, step), Norm::L2, epsilon, "foolbox_l2", "bounds_l2");
    assert!(worst <= 1e-5, "{worst}");
}

#[test]
fn fgsm_agrees_with_torchattacks() {
    let golden = Golden::open("pgd");
    let epsilon = golden.parameter("epsilon_linf");
    let attack = build("fgsm", toml::Table::new()).unwrap();
    let worst = compare(&*attack, Norm::Linf, epsilon, "torchattacks_fgsm", "bounds_linf");
    assert!(worst <= 1e-6, "{worst}");
}
