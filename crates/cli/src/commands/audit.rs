//! `nocebo audit`.

use std::path::Path;
use std::sync::Arc;

use indicatif::ProgressBar;
use nocebo_audit::{
    AttackEntry, Audit as Results, AuditData, AuditError, AuditRequest, AuditSettings, CONTROL, ClassOverlap,
    DecisionMetrics, Evaluation, Event, InputFile, LearningSet, Observer, Provenance, Rate, Status, Threat,
};
use nocebo_core::{DifferentiableModel, Error, Seed};
use nocebo_data::Dataset;

use crate::arguments::{Audit, Global};
use crate::failure::{Failure, Kind, OrFail};
use crate::load::{self, AnyAttack, Loaded, NamedAttack};
use crate::progress::bar;

pub(crate) fn run(arguments: &Audit, global: &Global) -> Result<(), Failure> {
    let (Loaded { model, executor }, data) = load::model_and_samples(&arguments.samples, global)?;
    let deviation = load::standard_deviation(&arguments.samples.data, &data, global)?;
    let mut threats = Vec::new();
    for threat in &arguments.threat {
        let (norm, epsilons) = load::epsilons(threat, data.domain(), deviation)?;
        threats.push(Threat { norm, epsilons });
    }
    let settings = AuditSettings {
        seed: Seed(global.seed),
        batch_size: arguments.samples.batch_size,
        include_images: arguments.include_images,
        gates: arguments.require.iter().map(|gate| gate.parse()).collect::<Result<_, AuditError>>().or_usage()?,
        ..AuditSettings::new(threats)
    };
    let inputs = [("model", &arguments.samples.model), ("data", &arguments.samples.data)];
    let provenance = Provenance {
        model: arguments.samples.model.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        inputs: inputs
            .into_iter()
            .filter(|(_, path)| path.is_file())
            .map(|(role, path)| hashed(role, path))
            .collect::<Result<_, _>>()?,
        command: Some(command_line()),
        ..provenance(global, &executor)
    };
    let named = load::attacks(&arguments.attacks)?;
    let learning = if named.iter().any(|named| matches!(named.attack, AnyAttack::Learns(_))) {
        Some(load::learning_set(&arguments.samples, &data, global)?)
    } else {
        None
    };
    let entries = entries(named, learning.as_ref())?;
    let evaluation =
        audit((model.as_ref(), &data, Some(deviation)), &entries, &settings, &provenance, &arguments.out, global)?;
    print_summary(&evaluation.audit);
    println!("wrote {}", arguments.out.display());
    let failed: Vec<String> =
        evaluation.audit.gates.iter().filter(|gate| !gate.passed).map(|gate| gate.gate.clone()).collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(Kind::Gate, anyhow::anyhow!("gate not met: {}", failed.join("; "))))
    }
}

/// The attacks of an audit, the noise control always among them. Those that learn first do so from `learning`.
pub(crate) fn entries(mut named: Vec<NamedAttack>, learning: Option<&Dataset>) -> Result<Vec<AttackEntry>, Failure> {
    if named.is_empty() {
        return Err(Failure::usage("--attacks names no attack"));
    }
    if !named.iter().any(|attack| attack.name == CONTROL) {
        named.extend(load::attacks(CONTROL)?);
    }
    let set =
        learning.map(|data| Arc::new(LearningSet::new(data.source(), data.samples().clone(), data.labels().to_vec())));
    let mut entries = Vec::new();
    for NamedAttack { name, settings, attack } in named {
        let settings = serde_json::to_value(&settings).or_usage()?;
        entries.push(match (attack, &set) {
            (AnyAttack::Ready(attack), _) => AttackEntry::new(name, settings, attack),
            (AnyAttack::Learns(attack), Some(set)) => AttackEntry::learning(name, settings, attack, Arc::clone(set)),
            (AnyAttack::Learns(_), None) => {
                return Err(Failure::usage(format!(
                    "attack `{name}` learns first, and there is nothing to learn from"
                )));
            }
        });
    }
    Ok(entries)
}

/// Runs an audit with progress.
pub(crate) fn audit(
    (model, data, standard_deviation): (&dyn DifferentiableModel, &Dataset, Option<f32>),
    attacks: &[AttackEntry],
    settings: &AuditSettings,
    provenance: &Provenance,
    folder: &Path,
    global: &Global,
) -> Result<Evaluation, Failure> {
    let data = AuditData {
        name: data.source().to_owned(),
        samples: data.samples().clone(),
        labels: data.labels().to_vec(),
        domain: data.domain().clone(),
        // The records hold pseudonyms only: the place of each patient's first sample.
        patients: data.patients().map(pseudonyms),
        standard_deviation,
    };
    let request = AuditRequest { model, data: &data, attacks, settings, provenance };
    let bar = Bar(bar(global, 0));
    let evaluation = nocebo_audit::run(request, folder, &bar);
    bar.0.finish_and_clear();
    evaluation.map_err(|error| {
        let kind = match &error {
            AuditError::Attack { .. }
            | AuditError::Stopped { .. }
            | AuditError::Core(Error::NonFinite { .. } | Error::Model(_)) => Kind::Incomplete,
            _ => Kind::Usage,
        };
        Failure::new(kind, error)
    })
}

fn pseudonyms(patients: &[String]) -> Vec<String> {
    let first = |patient: &String| patients.iter().position(|other| other == patient).unwrap_or_default();
    patients.iter().map(|patient| format!("patient {}", first(patient))).collect()
}

pub(crate) fn provenance(global: &Global, executor: &str) -> Provenance {
    Provenance {
        device: global.device.clone(),
        threads: rayon::current_num_threads(),
        versions: [("nocebo", env!("CARGO_PKG_VERSION").to_owned()), ("executor", executor.to_owned())]
            .map(|(name, version)| (name.to_owned(), version))
            .into(),
        ..Provenance::default()
    }
}

fn hashed(role: &str, path: &Path) -> Result<InputFile, Failure> {
    Ok(InputFile {
        role: role.to_owned(),
        name: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        sha256: nocebo_audit::sha256_of_file(path).or_load()?,
    })
}

/// The command as it was typed, with file names in place of paths.
fn command_line() -> String {
    let word = |argument: String| {
        let name = Path::new(&argument).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or(argument);
        if name.contains(|c: char| c.is_whitespace() || "\"'()<>;&|$*".contains(c)) {
            format!("'{name}'")
        } else {
            name
        }
    };
    std::env::args().map(word).collect::<Vec<_>>().join(" ")
}

/// Shows the cells of an audit on a bar.
struct Bar(ProgressBar);

impl Observer for Bar {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::CellStarted { index, total, name, samples } => {
                self.0.set_message(format!("{name} ({samples} samples)"));
                self.0.set_length(total as u64);
                self.0.set_position(index as u64);
            }
            Event::CellFinished { index, .. } => self.0.set_position(index as u64 + 1),
            _ => self.0.tick(),
        }
    }
}

/// Clean accuracy, then each threat with its worst case and its cells.
pub(crate) fn print_summary(audit: &Results) {
    println!(
        "{} on {} ({} samples): clean accuracy {}",
        audit.model.name,
        audit.data.name,
        audit.data.samples,
        shown(audit.clean.accuracy)
    );
    print_overlaps("clean", &audit.clean);
    println!("{:<30} {:<23} after storage", "robust accuracy under", "");
    for threat in &audit.threats {
        let worst = &threat.worst_case;
        let name = format!("{}:{} {}", threat.norm, threat.epsilon, audit.data.unit);
        println!("{name:<30} {:<23} {}", shown(worst.robust_accuracy), shown(worst.robust_accuracy_stored));
        print_overlaps("  worst", &worst.decisions);
        for cell in &threat.cells {
            println!(
                "  {:<28} {:<23} {}",
                cell.attack,
                shown(cell.robust_accuracy),
                shown(cell.robust_accuracy_stored)
            );
        }
    }
    for gate in &audit.gates {
        println!("gate {}: {}", gate.gate, if gate.passed { "met" } else { "NOT met" });
    }
    for finding in audit.findings.iter().filter(|finding| finding.status == Status::Fail) {
        println!("finding: {}", finding.title);
    }
}

/// Of masks, Dice and intersection over union of each class, in one line.
fn print_overlaps(what: &str, decisions: &DecisionMetrics) {
    let Some(overlaps) = &decisions.overlaps else { return };
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let of = |overlap: &ClassOverlap| format!("{} {}/{}", overlap.class, shown(overlap.dice), shown(overlap.iou));
    println!("{what} Dice/IoU: {}", overlaps.iter().map(of).collect::<Vec<_>>().join(", "));
}

/// A rate with its interval, as in `0.842 [0.785, 0.886]`.
fn shown(rate: Rate) -> String {
    match rate.value {
        Some(value) => format!("{value:.3} [{:.3}, {:.3}]", rate.lower, rate.upper),
        None => "not defined".to_owned(),
    }
}
