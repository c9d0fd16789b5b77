//! `nocebo audit`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use nocebo_audit::recipe::{AttackSection, FindingName, GoalName, Recipe, ReportSection};
use nocebo_audit::{
    AttackEntry, Audit as Results, AuditData, AuditError, AuditRequest, AuditSettings, CONTROL, ClassOverlap,
    DecisionMetrics, Evaluation, Event, InputFile, LearningSet, Observer, Protocol, Provenance, Rate, Status, Threat,
};
use nocebo_core::{DifferentiableModel, Error, Norm, Seed, ThreatSpec};
use nocebo_data::{Dataset, Split};

use crate::arguments::{self, Audit, Draw, Global, Learning, Opening, ProtocolName, Samples, Source, SplitName};
use crate::failure::{Failure, Kind, OrFail};
use crate::load::{self, AnyAttack, Loaded, NamedAttack};
use crate::progress::{bar, note};

pub(crate) fn run(arguments: &Audit, global: &Global) -> Result<(), Failure> {
    let (recipe, folder) = match &arguments.recipe {
        Some(path) => read(path, global)?,
        None => (from_flags(arguments, global)?, PathBuf::new()),
    };
    let global = &Global { seed: recipe.seed, ..global.clone() };
    let evaluation = carry_out(recipe, &folder, arguments, global)?;
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

/// A recipe and the folder that its paths start from.
fn read(path: &Path, global: &Global) -> Result<(Recipe, PathBuf), Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Kind::Load, anyhow::anyhow!("{}: {error}", path.display())))?;
    let recipe = Recipe::parse(&path.display().to_string(), &text).or_usage()?;
    if global.seed != 0 && global.seed != recipe.seed {
        return Err(Failure::usage(format!(
            "--seed {}: the recipe sets the seed to {}; change it there",
            global.seed, recipe.seed
        )));
    }
    Ok((recipe, path.parent().unwrap_or(Path::new("")).to_owned()))
}

/// The recipe that the flags say.
fn from_flags(arguments: &Audit, global: &Global) -> Result<Recipe, Failure> {
    let (Some(model), Some(data)) = (&arguments.model, &arguments.data) else {
        return Err(Failure::usage("--model and --data, or --recipe, are needed"));
    };
    let split = |split: SplitName| Split::from(split).to_string();
    let mut recipe = Recipe::new(model.clone(), data.clone(), arguments.threat.clone());
    recipe.seed = global.seed;
    recipe.protocol = arguments.protocol.map(|protocol| match protocol {
        ProtocolName::Quick => Protocol::Quick,
        ProtocolName::Standard => Protocol::Standard,
        ProtocolName::Thorough => Protocol::Thorough,
    });
    recipe.gates = arguments.require.iter().map(|gate| gate.parse()).collect::<Result<_, AuditError>>().or_usage()?;
    recipe.data.split = split(arguments.draw.split);
    recipe.data.samples = arguments.draw.samples;
    recipe.data.groups.clone_from(&arguments.group);
    recipe.data.unit.clone_from(&arguments.open.unit);
    recipe.data.bounds = arguments.open.bounds;
    recipe.data.window = arguments.open.window;
    recipe.data.store_as = arguments.store_as;
    recipe.data.serious = arguments.open.serious;
    recipe.data.tolerance = arguments.open.tolerance;
    recipe.data.learn_from = arguments.learning.learn_from.map(split);
    recipe.data.learning_samples = Some(arguments.learning.learning_samples);
    recipe.threat.goal = match arguments.goal {
        arguments::GoalName::Untargeted => GoalName::Untargeted,
        arguments::GoalName::FalseNegative => GoalName::FalseNegative,
        arguments::GoalName::FalsePositive => GoalName::FalsePositive,
    };
    recipe.threat.finding = arguments.finding.as_ref().map(|finding| match finding.parse() {
        Ok(index) => FindingName::Index(index),
        Err(_) => FindingName::Name(finding.clone()),
    });
    recipe.report = ReportSection { include_images: arguments.include_images, keep_samples: arguments.keep_samples };
    if let Some(attacks) = &arguments.attacks {
        recipe.attacks = load::sections(attacks)?;
        if recipe.attacks.is_empty() {
            return Err(Failure::usage("--attacks names no attack"));
        }
    }
    Ok(recipe)
}

fn split(name: &str) -> Result<SplitName, Failure> {
    match Split::parse(name) {
        Some(Split::Train) => Ok(SplitName::Train),
        Some(Split::Validation) => Ok(SplitName::Validation),
        Some(Split::Test) => Ok(SplitName::Test),
        None => Err(Failure::usage(format!("split: expected train, validation or test, got `{name}`"))),
    }
}

fn carry_out(mut recipe: Recipe, folder: &Path, arguments: &Audit, global: &Global) -> Result<Evaluation, Failure> {
    let open = Opening {
        class_names: recipe.data.class_names.clone(),
        unit: recipe.data.unit.clone(),
        bounds: recipe.data.bounds,
        window: recipe.data.window,
        serious: recipe.data.serious,
        tolerance: recipe.data.tolerance,
    };
    let samples = Samples {
        model: folder.join(&recipe.model.path),
        source: Source { data: folder.join(&recipe.data.path), open },
        draw: Draw { split: split(&recipe.data.split)?, samples: recipe.data.samples, ..arguments.draw },
        learning: Learning {
            learn_from: recipe.data.learn_from.as_deref().map(split).transpose()?,
            learning_samples: recipe.data.learning_samples.unwrap_or(256),
        },
    };
    let inputs = vec![hashed("model", &samples.model)?, hashed("data", &samples.source.data)?];
    unchanged(&recipe.inputs, &inputs)?;
    let all = load::data(&samples.source, samples.draw.split.into(), global)?;
    let (graph, spec) = load::graph_of(&recipe.model, &samples.model, &all)?;
    let Loaded { model, executor } = load::model(graph, spec.clone(), global)?;
    let versions = provenance(global, &executor).versions;
    note_other_versions(&recipe, &versions, global);
    let data = load::chosen(all, samples.draw, global)?;
    let deviation = load::standard_deviation(&samples.source, &data, global)?;
    let mut threats = Vec::new();
    for threat in &recipe.threat.budgets {
        let (norm, epsilons) = load::epsilons(threat, data.domain(), deviation)?;
        threats.push(Threat { norm, epsilons });
    }
    let (goal, finding) = recipe.threat.resolve(&spec.class_names).or_usage()?;

    if recipe.attacks.is_empty() && recipe.protocol.is_none() {
        recipe.protocol = Some(Protocol::Standard);
    }
    let mut title = None;
    let mut attacks: Vec<AttackSection> = Vec::new();
    if let Some(protocol) = recipe.protocol {
        let norms: Vec<Norm> = threats.iter().map(|threat| threat.norm).collect();
        let plan = protocol.plan(&spec.task, goal, &norms).or_usage()?;
        title = Some(plan.title);
        attacks = plan.attacks;
    }
    attacks.append(&mut recipe.attacks);
    let mut named = Vec::new();
    for mut attack in attacks {
        let made = load::made(&attack)?;
        attack.settings.clone_from(&made.settings);
        // A resolved recipe lists what its protocol stands for.
        if !recipe.attacks.contains(&attack) {
            named.push(made);
            recipe.attacks.push(attack);
        }
    }
    if !named.iter().any(|attack| attack.name == CONTROL) {
        named.extend(load::attacks(CONTROL)?);
        recipe.attacks.extend(load::sections(CONTROL)?);
    }
    let learns = named.iter().any(|named| matches!(named.attack, AnyAttack::Learns(_)));
    let learning = if learns { Some(load::learning_set(&samples, &data, global)?) } else { None };
    let mut entries = entries(named, learning.as_ref())?;
    for (entry, section) in entries.iter_mut().zip(&recipe.attacks) {
        entry.cascade = section.cascade;
        entry.norms.clone_from(&section.norms);
    }

    recipe.model.path = relative(&samples.model, &arguments.out)?;
    recipe.data.path = relative(&samples.source.data, &arguments.out)?;
    recipe.threat.budgets = threats.iter().map(written).collect::<Result<_, _>>()?;
    recipe.versions = versions;
    recipe.inputs.clone_from(&inputs);
    let settings = AuditSettings {
        goal,
        finding,
        seed: Seed(recipe.seed),
        query_limit: recipe.threat.query_limit,
        batch_size: arguments.draw.batch_size,
        include_images: recipe.report.include_images,
        keep_samples: recipe.report.keep_samples,
        gates: recipe.gates.clone(),
        protocol: title,
        store_as: recipe.data.store_as,
        channel: recipe.threat.channel.clone(),
        justification: recipe.threat.justification.clone(),
        ..AuditSettings::new(threats)
    };
    let provenance = Provenance {
        model: samples.model.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        inputs,
        command: Some(command_line()),
        recipe: Some(recipe.to_toml().or_usage()?),
        ..provenance(global, &executor)
    };
    let subject = Subject {
        model: model.as_ref(),
        data: &data,
        standard_deviation: Some(deviation),
        groups: &recipe.data.groups,
    };
    let limit = limit(arguments.max_minutes)?;
    audit(subject, &entries, &settings, &provenance, (&arguments.out, limit), global)
}

fn limit(minutes: Option<f64>) -> Result<Option<Duration>, Failure> {
    let refuse = |minutes| Failure::usage(format!("--max-minutes: expected a number above 0, got {minutes}"));
    let usable = |minutes: f64| (minutes.is_finite() && minutes > 0.0).then(|| Duration::from_secs_f64(60.0 * minutes));
    minutes.map(|minutes| usable(minutes).ok_or_else(|| refuse(minutes))).transpose()
}

/// Says what a resolved recipe was made by, where that is something else than now.
fn note_other_versions(recipe: &Recipe, now: &BTreeMap<String, String>, global: &Global) {
    for (name, made) in recipe.versions.iter().filter(|(name, made)| now.get(*name) != Some(*made)) {
        note(global, format!("note: the recipe was resolved by {name} {made}"));
    }
}

/// A threat as a recipe writes it, in the unit of the data.
fn written(threat: &Threat) -> Result<ThreatSpec, Failure> {
    let epsilons: Vec<String> = threat.epsilons.iter().map(ToString::to_string).collect();
    format!("{}:{}", threat.norm, epsilons.join(",")).parse().or_usage()
}

/// Refuses files that are not those that a recipe was resolved with.
fn unchanged(expected: &[InputFile], found: &[InputFile]) -> Result<(), Failure> {
    for was in expected {
        let is = found.iter().find(|file| file.role == was.role);
        if let Some(is) = is.filter(|is| is.sha256 != was.sha256) {
            let message = format!(
                "{} {}: expected SHA-256 {}, got {}; it has changed since the recipe was resolved (remove its [[input]] to \
                 audit the new one)",
                was.role, is.name, was.sha256, is.sha256
            );
            return Err(Failure::new(Kind::Load, anyhow::anyhow!(message)));
        }
    }
    Ok(())
}

/// The way from a folder, which need not exist yet, to a file: a resolved recipe names no folder above the two.
fn relative(path: &Path, folder: &Path) -> Result<PathBuf, Failure> {
    let path = path.canonicalize().or_load()?;
    let folder = std::path::absolute(folder).or_usage()?;
    let existing = folder.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    let folder = match existing {
        Some((ancestor, real)) => real.join(folder.strip_prefix(ancestor).or_usage()?),
        None => folder,
    };
    let shared = path.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    if shared == 0 {
        return Ok(path);
    }
    let up = folder.components().skip(shared).map(|_| Path::new("..").as_os_str());
    Ok(up.chain(path.components().skip(shared).map(std::path::Component::as_os_str)).collect())
}

/// The attacks of an audit. Those that learn first do so from `learning`.
pub(crate) fn entries(named: Vec<NamedAttack>, learning: Option<&Dataset>) -> Result<Vec<AttackEntry>, Failure> {
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

/// What is audited.
pub(crate) struct Subject<'a> {
    pub(crate) model: &'a dyn DifferentiableModel,
    pub(crate) data: &'a Dataset,
    pub(crate) standard_deviation: Option<f32>,
    /// Columns of subgroups that results are also given for.
    pub(crate) groups: &'a [String],
}

/// Runs an audit with progress, for at most as long as the limit says.
pub(crate) fn audit(
    Subject { model, data, standard_deviation, groups }: Subject<'_>,
    attacks: &[AttackEntry],
    settings: &AuditSettings,
    provenance: &Provenance,
    (folder, limit): (&Path, Option<Duration>),
    global: &Global,
) -> Result<Evaluation, Failure> {
    for group in groups {
        if !data.groups().contains_key(group) {
            let known: Vec<&str> = data.groups().keys().map(String::as_str).collect();
            return Err(Failure::usage(format!("group `{group}`: expected one of [{}]", known.join(", "))));
        }
    }
    let data = AuditData {
        name: data.source().to_owned(),
        samples: data.samples().clone(),
        labels: data.labels().to_vec(),
        domain: data.domain().clone(),
        // The records hold pseudonyms only: the place of each patient's first sample.
        patients: data.patients().map(pseudonyms),
        standard_deviation,
        groups: data
            .groups()
            .iter()
            .filter(|(name, _)| groups.contains(name))
            .map(|(name, values)| (name.clone(), values.clone()))
            .collect(),
        notes: data.warnings().iter().map(ToString::to_string).collect(),
    };
    let request = AuditRequest { model, data: &data, attacks, settings, provenance };
    let bar = Bar { bar: bar(global, 0), deadline: limit.map(|limit| Instant::now() + limit) };
    let evaluation = nocebo_audit::run(request, folder, &bar);
    bar.bar.finish_and_clear();
    evaluation.map_err(|error| {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let kind = match &error {
            AuditError::Write { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge) => {
                Kind::Incomplete
            }
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

/// Name and digest of a file or folder.
fn hashed(role: &str, path: &Path) -> Result<InputFile, Failure> {
    let digest = if path.is_dir() { nocebo_audit::sha256_of_folder } else { nocebo_audit::sha256_of_file };
    Ok(InputFile {
        role: role.to_owned(),
        name: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        sha256: digest(path).or_load()?,
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

/// Shows the cells of an audit on a bar, and stops it in time.
struct Bar {
    bar: ProgressBar,
    deadline: Option<Instant>,
}

impl Observer for Bar {
    fn stop(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn event(&self, event: Event<'_>) {
        match event {
            Event::CellStarted { index, total, name, samples } => {
                self.bar.set_message(format!("{name} ({samples} samples)"));
                self.bar.set_length(total as u64);
                self.bar.set_position(index as u64);
            }
            Event::CellFinished { index, .. } => self.bar.set_position(index as u64 + 1),
            _ => self.bar.tick(),
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
