//! `nocebo demo`: the whole tour on phantoms.

use nocebo_audit::{AuditSettings, Provenance, ReportEntry, Threat};
use nocebo_core::{Norm, Seed, ThreatModel};
use nocebo_data::phantoms::chest_xray::{ChestXray, ChestXrayConfig};
use nocebo_data::{Dataset, Split, formats::npz};
use nocebo_graph::train::TrainingConfig;

use super::audit::{Subject, audit, entries, print_summary, provenance};
use super::harden::harden;
use super::train::{build, save, train};
use crate::arguments::{Demo, Global, HardenMethod};
use crate::failure::{Failure, OrFail};
use crate::figures::Measure;
use crate::load::{self, Loaded};
use crate::progress::note;

/// Phantoms to train on, to choose a checkpoint by, and to test on.
const SIZES: [(Split, u64); 3] = [(Split::Train, 2400), (Split::Validation, 300), (Split::Test, 300)];
/// Side of a phantom in pixels.
const SIDE: usize = 28;
/// How hard the finding is to see: a small network should be right about nine times in ten.
const DIFFICULTY: f32 = 0.25;
/// Grey levels that the hardened network is trained against.
const EPSILON: f32 = 4.0;
/// Grey levels that both networks are audited at.
const EPSILONS: [f32; 6] = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
const ATTACKS: &str = "noise,fgsm,bim,pgd(steps=20,relative_step_size=0.25)";

pub(crate) fn run(arguments: &Demo, global: &Global) -> Result<(), Failure> {
    let out = &arguments.out;
    if out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::usage(format!("{} is not empty; choose a new folder", out.display())));
    }
    std::fs::create_dir_all(out)
        .map_err(|error| Failure::usage(format!("{} cannot be made: {error}", out.display())))?;

    note(global, "1/5 chest X-ray phantoms");
    let mut parts: Vec<(Split, Dataset)> = Vec::new();
    let config = ChestXrayConfig { size: SIDE, difficulty: DIFFICULTY, ..ChestXrayConfig::default() };
    let phantom = ChestXray::try_from(config).or_usage()?;
    let mut first = 0;
    for (split, count) in SIZES {
        let data = phantom.dataset(Seed(global.seed).named("demo"), first..first + count).or_incomplete()?;
        parts.push((split, data));
        first += count;
    }
    let borrowed: Vec<(Split, &Dataset)> = parts.iter().map(|(split, data)| (*split, data)).collect();
    npz::write(&out.join("phantoms.npz"), &borrowed).or_incomplete()?;
    let [(_, training), (_, validation), (_, test)] = parts.as_slice() else {
        return Err(Failure::usage("the demo needs three splits"));
    };

    note(global, "2/5 training");
    let spec = load::spec_for(training);
    let graph = build("small-cnn", &spec, training, Seed(global.seed)).or_usage()?;
    let config = TrainingConfig { epochs: 10, batch_size: 32, learning_rate: 3e-3, ..TrainingConfig::default() };
    let plain = train(&graph, &spec, (training, validation), &config, global)?.graph;
    save(plain.clone(), &spec, &out.join("plain.onnx"))?;

    note(global, "3/5 adversarial training");
    let threat = ThreatModel::new(Norm::Linf, EPSILON, spec.domain.clone()).or_usage()?;
    let config = TrainingConfig { epochs: 8, batch_size: 32, learning_rate: 2e-3, ..TrainingConfig::default() };
    let hardened =
        harden((&plain, &spec), (training, validation), &threat, HardenMethod::Pgd, &config, global)?.trained.graph;
    save(hardened.clone(), &spec, &out.join("hardened.onnx"))?;

    let mut evaluations = Vec::new();
    for (step, name, graph) in [(4, "plain", plain), (5, "hardened", hardened)] {
        note(global, format!("{step}/5 audit of the {name} network"));
        let Loaded { model, executor } = load::model(graph, spec.clone(), global)?;
        let settings = AuditSettings {
            seed: Seed(global.seed),
            include_images: 4,
            keep_samples: 60,
            ..AuditSettings::new(vec![Threat { norm: Norm::Linf, epsilons: EPSILONS.to_vec() }])
        };
        let origin = Provenance {
            model: name.to_owned(),
            command: Some(format!("nocebo demo --seed {}", global.seed)),
            ..provenance(global, &executor)
        };
        let deviation = training.statistics().standard_deviation[0];
        let folder = out.join(format!("audit-{name}"));
        let attacks = entries(load::attacks(ATTACKS)?, None)?;
        let subject = Subject { model: model.as_ref(), data: test, standard_deviation: Some(deviation), groups: &[] };
        let evaluation = audit(subject, &attacks, &settings, &origin, (&folder, None), global)?;
        println!("{name}: test accuracy {:.4}", Measure::Accuracy.on(model.as_ref(), test).or_incomplete()?);
        print_summary(&evaluation.audit);
        evaluations.push(evaluation);
    }
    let compared: Vec<ReportEntry<'_>> = evaluations
        .iter()
        .map(|evaluation| ReportEntry {
            name: &evaluation.audit.model.name,
            audit: &evaluation.audit,
            examples: &evaluation.examples,
        })
        .collect();
    let report = nocebo_audit::report_html(&compared).or_incomplete()?;
    let path = out.join("report.html");
    nocebo_core::write_file(&path, report.as_bytes()).or_incomplete()?;
    println!("wrote {}", path.display());
    Ok(())
}
