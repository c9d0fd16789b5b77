//! Agreement with peers on stored vectors (`tests/golden`, made by the scripts in `bench/golden`).

#![expect(clippy::unwrap_used, reason = "a stored vector that cannot be read is a failed test")]

use std::path::Path;

use nocebo_attacks::build;
use nocebo_core::{Attack, Goal, Model, Norm, Samples, Seed, ThreatModel};
use nocebo_testkit::golden::{self, Golden};
use nocebo_testkit::models::{Recorder, SmallRelu};
use serde::Deserialize;

fn open(name: &str) -> Golden {
    Golden::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), name)
}

/// Each sample of `clean` against the peer's iterate at the step where nocebo stopped; the greatest difference.
fn compare(attack: &dyn Attack, norm: Norm, epsilon: f32, peer: &str, bounds: &str) -> f32 {
    let golden = open("pgd");
    let features = 24;
    let clean = Samples::new(golden.floats("clean"), &[features]).unwrap();
    let ends: Vec<f32> =
        golden.parameters[bounds].as_array().unwrap().iter().map(|end| end.as_float().unwrap() as f32).collect();
    let inputs = golden::domain(&[features], ends[0], ends[1]);
    let model = golden.network(inputs.clone());
    let goal = Goal::Untargeted { labels: golden.labels("labels") };
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
    let golden = open("pgd");
    let (epsilon, step) = (golden.parameter("epsilon_linf"), golden.parameter("step_linf"));
    for peer in ["foolbox_linf", "torchattacks_linf"] {
        let worst = compare(&*pgd(&golden, epsilon, step), Norm::Linf, epsilon, peer, "bounds_linf");
        assert!(worst <= 1e-6, "{peer}: {worst}");
    }
}

#[test]
fn l2_pgd_agrees_with_foolbox() {
    let golden = open("pgd");
    let (epsilon, step) = (golden.parameter("epsilon_l2"), golden.parameter("step_l2"));
    let worst = compare(&*pgd(&golden, epsilon, step), Norm::L2, epsilon, "foolbox_l2", "bounds_l2");
    assert!(worst <= 1e-5, "{worst}");
}

#[test]
fn fgsm_agrees_with_torchattacks() {
    let golden = open("pgd");
    let epsilon = golden.parameter("epsilon_linf");
    let attack = build("fgsm", toml::Table::new()).unwrap();
    let worst = compare(&*attack, Norm::Linf, epsilon, "torchattacks_fgsm", "bounds_linf");
    assert!(worst <= 1e-6, "{worst}");
}

/// One peer's attack in `attacks.toml`, and how nocebo is compared with it.
#[derive(Deserialize)]
struct Entry {
    name: String,
    attack: String,
    settings: toml::Table,
    norm: Norm,
    epsilon: f32,
    targeted: bool,
    compare: Compare,
    tolerance: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Compare {
    /// The points asked about, one after another, up to the end of the shorter path: greatest difference of an element.
    Path,
    /// The perturbed input: greatest difference of an element.
    Result,
    /// Distance of the perturbed input from the clean one: relative difference.
    Distance,
    /// The same, where nocebo may be nearer; a peer that does not reach the goal is infinitely far.
    Nearer,
}

fn greatest_difference(ours: &[f32], theirs: &[f32]) -> f64 {
    ours.iter().zip(theirs).map(|(ours, theirs)| f64::from((ours - theirs).abs())).fold(0.0, f64::max)
}

/// How far one sample's attack is from the peer's, and how much was compared.
fn deviation(golden: &Golden, entry: &Entry, network: &SmallRelu, clean: &Samples, row: usize) -> (f64, usize) {
    let sample = clean.select(&[row]);
    let labels = vec![golden.labels("labels")[row].clone()];
    let goal = if entry.targeted {
        Goal::Targeted { labels, targets: vec![golden.labels("targets")[row].clone()] }
    } else {
        Goal::Untargeted { labels }
    };
    let shape: Vec<usize> = clean.shape().to_vec();
    let threat = ThreatModel::new(entry.norm, entry.epsilon, golden::domain(&shape, 0.0, 1.0)).unwrap();
    let recorder = Recorder::new(network);
    let attack = build(&entry.attack, entry.settings.clone()).unwrap();
    let outcome = attack.run(&recorder, &sample, &goal, &threat, Seed(0)).unwrap();
    let features = clean.elements();
    let theirs = &golden.floats(&format!("{}.results", entry.name))[row * features..(row + 1) * features];
    let ours = outcome.perturbed_inputs.row(0);
    match entry.compare {
        Compare::Result => (greatest_difference(ours, theirs), 1),
        Compare::Distance | Compare::Nearer => {
            assert!(outcome.success[0], "{}: sample {row} is not fooled", entry.name);
            let fooled = goal.reached(
                &network.spec().task,
                &network.outputs(&Samples::new(theirs.to_vec(), &shape).unwrap()).unwrap(),
            );
            let distance = |point: &[f32]| entry.norm.distance(sample.row(0), point);
            let theirs = if fooled[0] { distance(theirs) } else { f64::INFINITY };
            let farther = distance(ours) / theirs - 1.0;
            (if matches!(entry.compare, Compare::Nearer) { farther.max(0.0) } else { farther.abs() }, 1)
        }
        Compare::Path => {
            let mut path: Vec<Vec<f32>> = recorder.into_asked().into_iter().map(|asked| asked.point).collect();
            path.dedup();
            let most = golden.parameters["points"].as_integer().unwrap() as usize;
            let count = golden.integers(&format!("{}.counts", entry.name))[row];
            let points = golden.floats(&format!("{}.points", entry.name));
            let theirs = points[row * most * features..].chunks_exact(features).take(count);
            let compared = path.len().min(count);
            (
                path.iter().zip(theirs).map(|(ours, theirs)| greatest_difference(ours, theirs)).fold(0.0, f64::max),
                compared,
            )
        }
    }
}

#[test]
fn attacks_follow_the_paths_of_their_peers() {
    let golden = open("attacks");
    let shape: Vec<usize> =
        golden.parameters["shape"].as_array().unwrap().iter().map(|side| side.as_integer().unwrap() as usize).collect();
    let clean = Samples::new(golden.floats("clean"), &shape).unwrap();
    let network = golden.network(golden::domain(&shape, 0.0, 1.0));
    let entries: Vec<Entry> = golden.parameters["entry"].clone().try_into().unwrap();
    let mut failures = Vec::new();
    for entry in &entries {
        let found: Vec<(f64, usize)> =
            (0..clean.len()).map(|row| deviation(&golden, entry, &network, &clean, row)).collect();
        let compared: usize = found.iter().map(|(_, compared)| compared).sum();
        let least = if matches!(entry.compare, Compare::Path) { 2 * clean.len() } else { clean.len() };
        if compared < least || found.iter().any(|(deviation, _)| *deviation > entry.tolerance) {
            failures.push(format!("{}: {found:?}", entry.name));
        }
    }
    assert!(failures.is_empty(), "{} of {} entries\n{}", failures.len(), entries.len(), failures.join("\n"));
}
