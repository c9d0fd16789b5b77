//! Grades in order and numbers: attacks reach an error that counts just above the least budget for it, and none below.

#![expect(clippy::unwrap_used, reason = "an attack that cannot run is a failed test")]

use nocebo_core::{Domain, Goal, Label, Model, Norm, NotNan, Samples, Seed, Task, ThreatModel};
use nocebo_testkit::models::Linear;

const ATTACKS: [&str; 14] = [
    "fgsm",
    "pgd",
    "apgd",
    "apgd:above",
    "apgd:below",
    "apgd:margin",
    "apgd-t:margin",
    "deepfool",
    "fab",
    "fmn",
    "ddn",
    "square",
    "simba",
    "hop-skip-jump",
];

fn outcome(name: &str, model: &Linear, inputs: &Samples, goal: &Goal, norm: Norm, epsilon: f32) -> Option<Vec<bool>> {
    let (name, loss) = name.split_once(':').unwrap_or((name, ""));
    let mut settings = toml::Table::new();
    if !loss.is_empty() {
        settings.insert("loss".to_owned(), loss.into());
    }
    let attack = nocebo_attacks::build(name, settings).unwrap();
    if !attack.info().norms.contains(&norm) {
        return None;
    }
    let threat = ThreatModel::new(norm, epsilon, model.spec().domain.clone()).unwrap();
    let found = attack.run(model, inputs, goal, &threat, Seed(1)).unwrap();
    for (row, success) in found.success.iter().enumerate() {
        let logits = model.logits(found.perturbed_inputs.row(row));
        assert_eq!(*success, goal.is_reached(&model.spec().task, row, &logits), "{name}");
        assert!(threat.allows(inputs.row(row), found.perturbed_inputs.row(row)), "{name}");
    }
    Some(found.success)
}

#[test]
fn a_number_is_moved_beyond_its_tolerance_just_above_the_least_budget() {
    let domain = Domain::grey_levels(&[4], 255.0).unwrap();
    let model =
        Linear::new(domain, Task::Regression { tolerance: 6.0 }, vec![vec![0.5, -0.25, 1.0, 0.125]], vec![-20.0]);
    let inputs = Samples::new(vec![100.0, 120.0, 80.0, 60.0], &[4]).unwrap();
    // The answer is 87.5: 1.5 more than the truth, so 4.5 are missing upwards and 7.5 downwards.
    let goal = Goal::Untargeted { labels: vec![Label::Number(NotNan::new(86.0).unwrap())] };
    for (norm, dual) in [(Norm::Linf, 1.875_f32), (Norm::L2, 1.328_125_f32.sqrt())] {
        for name in ATTACKS {
            let below = name == "apgd:below";
            let least = if below { 7.5 } else { 4.5 } / dual;
            let Some(far) = outcome(name, &model, &inputs, &goal, norm, 1.05 * least) else { continue };
            // DDN rounds and searches by queries come near, but not to five in a hundred; a random start may lie on the other
            // side, which is what the losses above and below are for.
            let exact = !["ddn", "simba", "square", "hop-skip-jump", "pgd", "apgd", "apgd:margin", "apgd-t:margin"]
                .contains(&name);
            assert!(far[0] || !exact, "{name} {norm}");
            assert!(outcome(name, &model, &inputs, &goal, norm, 2.0 * least).unwrap()[0], "{name} {norm}");
            let near = outcome(name, &model, &inputs, &goal, norm, 0.95 * 4.5 / dual).unwrap();
            assert!(!near[0], "{name} {norm}");
        }
    }
}

#[test]
fn a_grade_is_moved_by_as_many_as_count() {
    // Logits of an ordinal head: grade k is decided where the mean lies between 50·k − 25 and 50·k + 25.
    let domain = Domain::grey_levels(&[4], 255.0).unwrap();
    let weights = (0..5_u8).map(|grade| vec![f32::from(grade) * 0.025; 4]).collect();
    let biases = (0..5_u8).map(|grade| -2.5 * f32::from(grade) * f32::from(grade)).collect();
    let model = Linear::new(domain, Task::Ordinal { grades: 5, serious: 2 }, weights, biases);
    let inputs = Samples::new(vec![60.0; 4], &[4]).unwrap();
    assert_eq!(model.spec().task.decide(&model.logits(inputs.row(0))), Label::Class(1));
    let goal = Goal::Untargeted { labels: vec![Label::Class(1)] };
    // Of the grades that count the nearest is 3, from a mean of 125 on.
    for (norm, least) in [(Norm::Linf, 65.0), (Norm::L2, 130.0)] {
        for name in ATTACKS {
            if name == "apgd:below" {
                continue; // there is no grade two below
            }
            let Some(far) = outcome(name, &model, &inputs, &goal, norm, 1.1 * least) else { continue };
            let exact = !["ddn", "simba", "square", "hop-skip-jump", "fgsm"].contains(&name);
            assert!(far[0] || !exact, "{name} {norm}");
            assert!(!outcome(name, &model, &inputs, &goal, norm, 0.95 * least).unwrap()[0], "{name} {norm}");
        }
    }
}
