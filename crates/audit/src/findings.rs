//! What may make a robustness figure untrue: computed, each with what to do about it.
//!
//! Sources: Croce & Hein 2020 (the warnings of AutoAttack), Athalye et al. 2018 (signs of obfuscated gradients),
//! Pintor et al. 2022 (indicators of attack failure).

use nocebo_core::{Domain, Knowledge, Norm, Task};
use serde::{Deserialize, Serialize};

use crate::cell::{Cell, Clean};
use crate::metrics::{CellSummary, DecisionMetrics, ThreatResult, significant};
use crate::probe::Probe;
use crate::request::AttackEntry;
use crate::watch::LEAST_STEPS;

/// Share of the samples attacked that may fall to noise alone: some lie on the boundary.
const TOLERANCE: f64 = 0.01;

/// Share of the samples that may be exceptions before a sign counts as seen.
const FEW_EXCEPTIONS: f64 = 0.1;

/// Share of a run's progress in its last steps from which it counts as unfinished.
const UNFINISHED: f32 = 0.05;

/// Share of the samples attacked that may be held by unfinished runs within reach of the goal.
const WITHIN_REACH: f64 = 0.02;

/// Whether something that would cast doubt on the audit was seen.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Looked for, not seen.
    Pass,
    /// Seen.
    Fail,
    /// Could not be looked for.
    NotApplicable,
}

/// One thing looked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Short name for machines.
    pub id: String,
    /// What should hold, in one line.
    pub title: String,
    /// Whether it does.
    pub status: Status,
    /// Whether a failure means that the attacks were weaker than they should be, so that the true robustness may be
    /// lower than the figure.
    pub weakens_evaluation: bool,
    /// The numbers seen.
    pub detail: String,
    /// What to do; empty unless the status is [`Status::Fail`].
    pub advice: String,
}

/// Everything that findings are drawn from.
pub(crate) struct Evidence<'a> {
    pub(crate) task: &'a Task,
    pub(crate) domain: &'a Domain,
    pub(crate) attacks: &'a [AttackEntry],
    pub(crate) cells: &'a [Cell],
    pub(crate) clean: &'a Clean,
    pub(crate) decisions: &'a DecisionMetrics,
    pub(crate) majority_share: f64,
    pub(crate) threats: &'a [ThreatResult],
    pub(crate) probe: &'a Probe,
}

/// What a check came to: not applicable and why, or whether it holds with the numbers.
enum Verdict {
    NotApplicable(&'static str),
    Seen { fails: bool, detail: String },
}

impl Verdict {
    fn unless(fails: bool, detail: impl Into<String>) -> Self {
        Self::Seen { fails, detail: detail.into() }
    }
}

type Check = fn(&Evidence<'_>) -> Verdict;

/// Name, what should hold, advice, whether a failure weakens the evaluation, and how it is looked for.
const CHECKS: [(&str, &str, &str, bool, Check); 23] = [
    (
        "clean_accuracy_above_majority",
        "The model is better than always answering the most frequent label",
        "Train the model before auditing it: the robustness of an answer that ignores the input means nothing.",
        false,
        clean_accuracy_above_majority,
    ),
    (
        "answers_repeat",
        "The same input gives the same output",
        "The model is random or keeps a state. Attack it through the expectation over its randomness (EOT), and report \
         the worst of several evaluations of each sample.",
        true,
        answers_repeat,
    ),
    (
        "inference_is_static",
        "An answer does not depend on the other samples of a batch, nor on what was asked before",
        "The model keeps a state, optimises at inference, or normalises over the batch (batch normalisation in training \
         mode). Freeze it, or attack it as it is used: through its state or its inner optimisation.",
        true,
        inference_is_static,
    ),
    (
        "losses_fit_the_classes",
        "The attacks ask for losses and targets that the number of classes allows",
        "There are fewer other classes than an attack asks to head for. Nothing is lost, but the settings do not say what \
         was done: correct them.",
        false,
        losses_fit_the_classes,
    ),
    (
        "outputs_are_logits",
        "The outputs are logits, not probabilities",
        "Remove the final softmax: it flattens the losses that attacks follow. Attack the logits.",
        true,
        outputs_are_logits,
    ),
    (
        "gradients_available",
        "The gradient of the decision margin is finite and not zero",
        "A step of the model has no useful gradient (rounding, quantisation, a detached branch). Replace it in the \
         backward pass by a smooth surrogate (BPDA), and add a black-box attack.",
        true,
        gradients_available,
    ),
    (
        "gradients_foretell_change",
        "A short step along the gradient changes the margin as the gradient says",
        "The backward pass is not that of the model (a surrogate, a stopped branch), or the model is rough. Attack with a \
         gradient averaged over the neighbourhood or estimated from queries, and add a black-box attack.",
        true,
        gradients_foretell_change,
    ),
    (
        "predictions_are_steady",
        "A short random step hardly changes the margin",
        "The output jumps between neighbouring inputs. Attack an average over the neighbourhood (EOT, smoothing).",
        true,
        predictions_are_steady,
    ),
    (
        "unlimited_attacks_succeed",
        "Attacks that may change everything bring nearly every sample down",
        "Attacks fail even where they cannot: the path from the input to the loss is broken. Repair it before reading any \
         figure.",
        true,
        unlimited_attacks_succeed,
    ),
    (
        "loss_does_not_saturate",
        "The gradient of the cross-entropy is not zero where that of the margin is not",
        "The outputs are so confident that the cross-entropy has no slope left. Use the margin or DLR loss.",
        true,
        loss_does_not_saturate,
    ),
    (
        "numbers_are_finite",
        "Model and attacks compute with finite numbers",
        "Find the operation that overflows on these samples. They are counted as not robust.",
        false,
        numbers_are_finite,
    ),
    (
        "claims_confirmed",
        "What the attacks report as success is confirmed by a fresh forward pass",
        "The attack tests another model than the one audited, or keeps another point than it tested. The figures count \
         only what was confirmed.",
        false,
        claims_confirmed,
    ),
    (
        "found_points_returned",
        "Every adversarial point that an attack came across is returned",
        "The attack forgets its best point. Keep the first success instead of the last iterate.",
        true,
        found_points_returned,
    ),
    (
        "points_within_threat",
        "Every returned point is inside the ball and the bounds",
        "The attack leaves the threat model. Points outside are not counted as success; correct its projection.",
        false,
        points_within_threat,
    ),
    (
        "noise_weaker_than_attack",
        "Random noise of equal norm does less harm than the attacks",
        "Attacks that random noise can match follow useless gradients. Look for masked gradients, and attack with more \
         steps, restarts, another loss, and without gradients.",
        true,
        noise_weaker_than_attack,
    ),
    (
        "iterative_beats_one_step",
        "Iterative attacks do at least as much harm as one-step attacks",
        "A sign of masked gradients or of a step size that is too large. Try smaller steps, more restarts, and an attack \
         without gradients.",
        true,
        iterative_beats_one_step,
    ),
    (
        "gradients_beat_queries",
        "Attacks with gradients do at least as much harm as attacks without",
        "The gradients mislead. Replace the steps that hide them (BPDA), or judge the model by the black-box attacks.",
        true,
        gradients_beat_queries,
    ),
    (
        "transfer_beats_noise",
        "Attacks that come from another model or from other samples do more harm than noise",
        "What was learned elsewhere does not carry over: it says nothing about this model. Use a better surrogate, or more \
         and nearer samples to learn from.",
        false,
        transfer_beats_noise,
    ),
    (
        "attacks_raise_the_margin",
        "Attacks that fail at least bring the decision nearer to changing",
        "The attacks end where they started or farther away: the gradient points nowhere. Look for masked gradients, and \
         attack without gradients.",
        true,
        attacks_raise_the_margin,
    ),
    (
        "no_label_leaking",
        "One-step attacks do not make the model surer of the true label",
        "The model was probably trained on one-step attacks and recognises them (label leaking, catastrophic \
         overfitting). Do not read one-step figures; harden with iterative attacks.",
        false,
        no_label_leaking,
    ),
    (
        "robustness_has_its_price",
        "A large budget brings some samples down",
        "Nothing falls where much is allowed: the evaluation is probably broken. Audit up to a budget at which everything \
         must fall (linf:inf).",
        false,
        robustness_has_its_price,
    ),
    (
        "success_grows_with_epsilon",
        "A larger budget never does less harm",
        "The attack does not converge at the larger budget: give it more steps, restarts, or a smaller step size.",
        true,
        success_grows_with_epsilon,
    ),
    (
        "attacks_converged",
        "Attacks that failed had come to rest, or were far from their goal",
        "The margin was still moving in the last steps. Give the attack more or larger steps.",
        true,
        attacks_converged,
    ),
];

/// Looks for everything that can be looked for.
pub(crate) fn findings(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = CHECKS
        .iter()
        .map(|&(id, title, advice, weakens_evaluation, check)| {
            finding(id, title, advice, weakens_evaluation, check(evidence))
        })
        .collect();
    found.push(finding(
        "survives_storage",
        "The perturbations survive being stored in the unit of the data",
        "Much of the harm is lost when the input is rounded to what a file can hold. Where the attacker can only change \
         stored files, read the figures after storage; where he reaches the model's input, those as computed.",
        false,
        survives_storage(evidence),
    ));
    found
}

fn finding(id: &str, title: &str, advice: &str, weakens_evaluation: bool, verdict: Verdict) -> Finding {
    let (status, detail) = match verdict {
        Verdict::NotApplicable(reason) => (Status::NotApplicable, reason.to_owned()),
        Verdict::Seen { fails, detail } => (if fails { Status::Fail } else { Status::Pass }, detail),
    };
    Finding {
        id: id.to_owned(),
        title: title.to_owned(),
        status,
        weakens_evaluation,
        detail,
        advice: if status == Status::Fail { advice.to_owned() } else { String::new() },
    }
}

const NO_SLOPE: &str = "the model gives no gradients, or all of them are zero";

const NOTHING_ATTACKED: &str = "no sample was right to begin with";

fn clean_accuracy_above_majority(evidence: &Evidence<'_>) -> Verdict {
    let accuracy = evidence.decisions.accuracy.value.unwrap_or(0.0);
    let share = evidence.majority_share;
    Verdict::unless(
        accuracy <= share,
        format!("clean accuracy {}, most frequent label {}", percent(accuracy), percent(share)),
    )
}

fn answers_repeat(evidence: &Evidence<'_>) -> Verdict {
    let Probe { probed, changing_answers, .. } = *evidence.probe;
    if probed == 0 {
        return Verdict::NotApplicable(NOTHING_ATTACKED);
    }
    Verdict::unless(changing_answers > 0, format!("{changing_answers} of {probed} answers changed when asked again"))
}

fn inference_is_static(evidence: &Evidence<'_>) -> Verdict {
    let Probe { asked_alone, changing_alone, .. } = *evidence.probe;
    if asked_alone == 0 {
        return Verdict::NotApplicable(NOTHING_ATTACKED);
    }
    let detail = format!("{changing_alone} of {asked_alone} answers changed when the sample was asked alone");
    Verdict::unless(changing_alone > 0, detail)
}

fn losses_fit_the_classes(evidence: &Evidence<'_>) -> Verdict {
    let ways = match evidence.task {
        Task::MultiLabel { thresholds } => thresholds.len(),
        Task::Regression { .. } => return Verdict::NotApplicable("a number has no classes"),
        task => task.classes() - 1,
    };
    let asked = evidence.attacks.iter().filter_map(|entry| {
        let targets = entry.settings.get("targets").or_else(|| entry.settings.get("target_classes"))?.as_u64()?;
        (targets as usize > ways).then(|| format!("{} asks for {targets} targets", entry.name))
    });
    let asked: Vec<String> = asked.collect();
    let dlr = match ways {
        _ if matches!(evidence.task, Task::MultiLabel { .. }) => "the DLR loss is not defined for findings",
        0 | 1 => "the DLR loss is not defined for two classes",
        2 => "the targeted DLR loss is not defined for three classes",
        _ => "the DLR loss is defined",
    };
    Verdict::unless(!asked.is_empty(), [vec![format!("{ways} other decisions: {dlr}")], asked].concat().join("; "))
}

fn outputs_are_logits(evidence: &Evidence<'_>) -> Verdict {
    let looks = evidence.probe.looks_like_softmax;
    let detail =
        if looks { "every row is between 0 and 1 and sums to 1" } else { "the rows do not look like probabilities" };
    Verdict::unless(looks, detail)
}

fn gradients_available(evidence: &Evidence<'_>) -> Verdict {
    let Some(gradients) = evidence.probe.gradients else {
        return Verdict::NotApplicable("the model gives no gradients, or nothing was attacked");
    };
    let (probed, lost) = (evidence.probe.probed, gradients.zero_margin + gradients.not_finite);
    let during: usize = white_box(evidence).flat_map(Cell::attacked).filter(|row| row.trace.zero_gradients > 0).count();
    let detail = format!(
        "{} of {probed} gradients zero and {} not finite on the clean samples; {during} attacked samples met a zero \
         gradient on the way",
        gradients.zero_margin, gradients.not_finite
    );
    Verdict::unless(lost > 0, detail)
}

fn gradients_foretell_change(evidence: &Evidence<'_>) -> Verdict {
    let Some(steps) = evidence.probe.steps else { return Verdict::NotApplicable(NO_SLOPE) };
    let detail =
        format!("{} of {} steps changed the margin by less than half or more than twice", steps.wrong, steps.samples);
    Verdict::unless(steps.wrong as f64 > FEW_EXCEPTIONS * steps.samples as f64, detail)
}

fn predictions_are_steady(evidence: &Evidence<'_>) -> Verdict {
    let Some(steps) = evidence.probe.steps else { return Verdict::NotApplicable(NO_SLOPE) };
    let detail = format!("mean relative change of the margin {}", percent(steps.unsteadiness));
    Verdict::unless(steps.unsteadiness > 0.1, detail)
}

fn unlimited_attacks_succeed(evidence: &Evidence<'_>) -> Verdict {
    let Some(unlimited) = evidence.probe.unlimited else {
        return Verdict::NotApplicable("no attack with gradients was run, or nothing was attacked");
    };
    let detail = format!("{} of {} samples fell in {}", unlimited.fallen, unlimited.samples, unlimited.norm);
    Verdict::unless(((unlimited.samples - unlimited.fallen) as f64) > FEW_EXCEPTIONS * unlimited.samples as f64, detail)
}

fn loss_does_not_saturate(evidence: &Evidence<'_>) -> Verdict {
    let Some(gradients) = evidence.probe.gradients else {
        return Verdict::NotApplicable("the model gives no gradients, or nothing was attacked");
    };
    let (saturated, probed) = (gradients.zero_cross_entropy, evidence.probe.probed);
    Verdict::unless(saturated > 0, format!("{saturated} of {probed} cross-entropy gradients are zero"))
}

fn numbers_are_finite(evidence: &Evidence<'_>) -> Verdict {
    let broken = sum(evidence, |cell| cell.not_finite);
    Verdict::unless(broken > 0, format!("{broken} attacked samples met a number that is not finite"))
}

fn claims_confirmed(evidence: &Evidence<'_>) -> Verdict {
    let unconfirmed = sum(evidence, |cell| cell.claimed_but_not_confirmed);
    Verdict::unless(unconfirmed > 0, format!("{unconfirmed} claims were not confirmed"))
}

fn found_points_returned(evidence: &Evidence<'_>) -> Verdict {
    let lost = sum(evidence, |cell| cell.found_but_not_returned);
    Verdict::unless(lost > 0, format!("{lost} adversarial points were found and not returned"))
}

fn points_within_threat(evidence: &Evidence<'_>) -> Verdict {
    let outside = sum(evidence, |cell| cell.outside_threat);
    let asked = evidence.cells.iter().flat_map(Cell::attacked).filter(|row| row.trace.left_bounds).count();
    let detail = format!(
        "{outside} returned points outside; {asked} attacked samples were shown to the model outside the bounds on the way"
    );
    Verdict::unless(outside > 0, detail)
}

fn noise_weaker_than_attack(evidence: &Evidence<'_>) -> Verdict {
    let (mut failures, mut widest) = (Vec::new(), None::<(f64, String)>);
    let attacked = evidence.clean.attacked();
    for threat in evidence.threats {
        let Some(noise) = threat.cells.iter().find(|cell| cell.control) else { continue };
        let best = threat.worst_case.attack_success_rate.value.unwrap_or(0.0);
        let here = (threat.norm, threat.epsilon);
        let by_noise = |position: usize| {
            let mut cells = evidence.cells.iter();
            cells.any(|cell| cell.control && (cell.norm, cell.epsilon) == here && cell.fell(position))
        };
        let by_attack = |position: usize| fell_by(evidence, position, here, &|cell| !cell.control);
        let alone = attacked.iter().filter(|&&position| by_noise(position) && !by_attack(position)).count();
        let (noise, here) = (success(noise), place(threat));
        if noise == 0.0 && best == 0.0 {
            continue;
        }
        let numbers = format!("{here}: noise {}, best attack {}", percent(noise), percent(best));
        // A handful of samples near the boundary fall to anything; all of them may, at a large budget.
        let as_good = noise >= best && noise > FEW_EXCEPTIONS && noise < 1.0;
        if as_good || alone as f64 > TOLERANCE * attacked.len() as f64 {
            failures.push(format!("{numbers}, samples that fall to noise alone {alone}"));
        }
        if widest.as_ref().is_none_or(|(gap, _)| best - noise > *gap) {
            widest = Some((best - noise, numbers));
        }
    }
    match widest {
        None => Verdict::NotApplicable("no noise control, or nothing fell"),
        Some((_, numbers)) if failures.is_empty() => Verdict::unless(false, format!("success rate at {numbers}")),
        Some(_) => Verdict::unless(true, format!("success rate at {}", failures.join("; "))),
    }
}

fn transfer_beats_noise(evidence: &Evidence<'_>) -> Verdict {
    let elsewhere: Vec<&str> = evidence
        .attacks
        .iter()
        .filter(|entry| entry.learned_from().is_some())
        .map(|entry| entry.name.as_str())
        .collect();
    let (mut compared, mut failures) = (0, Vec::new());
    for threat in evidence.threats {
        let Some(noise) = threat.cells.iter().find(|cell| cell.control).map(success) else { continue };
        for cell in threat.cells.iter().filter(|cell| elsewhere.contains(&cell.attack.as_str()) && noise < 1.0) {
            compared += 1;
            if success(cell) <= noise && noise > 0.0 {
                failures.push(format!("{} {} to {}", place(threat), percent(success(cell)), percent(noise)));
            }
        }
    }
    if compared == 0 {
        return Verdict::NotApplicable("no attack learned from another model or from other samples");
    }
    let fails = failures.len() == compared;
    let detail = if failures.is_empty() {
        format!("{compared} comparisons with noise")
    } else {
        format!("success no better than that of noise at {}", failures.join("; "))
    };
    Verdict::unless(fails, detail)
}

fn robustness_has_its_price(evidence: &Evidence<'_>) -> Verdict {
    // Below a 32nd of what the bounds allow, holding everything is no wonder.
    let large = evidence
        .threats
        .iter()
        .filter(|threat| f64::from(threat.epsilon) * 32.0 > f64::from(threat.norm.greatest_distance(evidence.domain)));
    let fallen = large.map(|threat| threat.worst_case.attack_success_rate.value.unwrap_or(0.0));
    let Some(most) = fallen.reduce(f64::max) else {
        return Verdict::NotApplicable("no budget is above a 32nd of what the bounds allow");
    };
    if evidence.clean.attacked().is_empty() {
        return Verdict::NotApplicable(NOTHING_ATTACKED);
    }
    let clean = evidence.decisions.accuracy.value.unwrap_or(0.0);
    let detail = format!(
        "clean accuracy {}; of the samples attacked {} fell at the most harmful budget",
        percent(clean),
        percent(most)
    );
    Verdict::unless(most <= TOLERANCE, detail)
}

fn iterative_beats_one_step(evidence: &Evidence<'_>) -> Verdict {
    // One step is told by what was spent: at most one gradient a sample.
    let steps = |name: &str| {
        let cells = evidence.cells.iter().filter(|cell| cell.attack == name);
        cells.flat_map(Cell::attacked).map(|row| row.queries.backward).max().unwrap_or(0)
    };
    let uses = |cell: &Cell| knowledge(evidence, &cell.attack) == Some(Knowledge::Gradients);
    compare(
        evidence,
        ("one-step", &|cell| uses(cell) && steps(&cell.attack) == 1),
        ("iterative", &|cell| uses(cell) && steps(&cell.attack) > 1),
    )
}

fn gradients_beat_queries(evidence: &Evidence<'_>) -> Verdict {
    let knows = |cell: &Cell| knowledge(evidence, &cell.attack);
    compare(
        evidence,
        ("black-box", &|cell| matches!(knows(cell), Some(Knowledge::Scores | Knowledge::Decisions))),
        ("white-box", &|cell| knows(cell) == Some(Knowledge::Gradients)),
    )
}

/// Whether `surplus` samples against `deficit` are more than chance makes of a fair coin: two standard errors.
fn beyond_chance(surplus: usize, deficit: usize) -> bool {
    surplus as f64 - deficit as f64 > 2.0 * ((surplus + deficit) as f64).sqrt()
}

type Group<'a> = (&'a str, &'a dyn Fn(&Cell) -> bool);

/// Whether a sample fell to an attack of a group at this budget or a smaller one: what brought it down there still does.
fn fell_by(
    evidence: &Evidence<'_>,
    position: usize,
    (norm, epsilon): (Norm, f32),
    belongs: &dyn Fn(&Cell) -> bool,
) -> bool {
    let mut cells = evidence.cells.iter();
    cells.any(|cell| cell.norm == norm && cell.epsilon <= epsilon && belongs(cell) && cell.fell(position))
}

/// Fails where the attacks of the group that should be weaker bring down clearly more samples than the others.
fn compare(evidence: &Evidence<'_>, weaker: Group<'_>, stronger: Group<'_>) -> Verdict {
    let (mut compared, mut failures) = (0, Vec::new());
    let attacked = evidence.clean.attacked();
    for threat in evidence.threats {
        let here = (threat.norm, threat.epsilon);
        let group = |belongs: &dyn Fn(&Cell) -> bool| -> Vec<&Cell> {
            let cells = evidence.cells.iter().filter(|cell| (cell.norm, cell.epsilon) == here);
            cells.filter(|cell| !cell.control && belongs(cell)).collect()
        };
        let (low, high) = (group(weaker.1), group(stronger.1));
        if low.is_empty() || high.is_empty() || attacked.is_empty() {
            continue;
        }
        compared += 1;
        // In a cascade a group may have passed a sample over: that says nothing about it.
        let tried = |cells: &[&Cell], position: usize| cells.iter().any(|cell| cell.rows[position].is_some());
        let alone = |one: Group<'_>, (cells, other): (&[&Cell], Group<'_>)| {
            let felled = |group: Group<'_>, position: usize| {
                fell_by(evidence, position, here, &|cell| !cell.control && group.1(cell))
            };
            let those = attacked.iter().filter(|&&position| felled(one, position) && !felled(other, position));
            those.filter(|&&position| tried(cells, position)).count()
        };
        let (surplus, deficit) = (alone(weaker, (&high, stronger)), alone(stronger, (&low, weaker)));
        // Where the weaker group was tried on the rest only, AutoAttack's rule: more than 0.2 points; one sample is no sign.
        let on_the_rest = low.iter().all(|cell| attacked.iter().any(|&at| cell.passed_over(evidence.clean, at)));
        let gain = on_the_rest && surplus > 1 && surplus as f64 > 0.002 * attacked.len() as f64;
        if beyond_chance(surplus, deficit) || gain {
            failures.push(format!(
                "{}: {surplus} to {} alone, {deficit} to {} alone",
                place(threat),
                weaker.0,
                stronger.0
            ));
        }
    }
    if compared == 0 {
        return Verdict::NotApplicable("no pair of such attacks was run");
    }
    let detail = if failures.is_empty() {
        format!("at none of {compared} budgets do clearly more samples fall to {} attacks", weaker.0)
    } else {
        format!("samples that fell at {}", failures.join("; "))
    };
    Verdict::unless(!failures.is_empty(), detail)
}

fn attacks_raise_the_margin(evidence: &Evidence<'_>) -> Verdict {
    let (mut compared, mut failures) = (0, Vec::new());
    for threat in evidence.threats.iter().filter(|threat| threat.epsilon > 0.0) {
        let here = |cell: &&Cell| cell.norm == threat.norm && cell.epsilon == threat.epsilon && !cell.control;
        let (mut held, mut stuck) = (0_usize, 0_usize);
        for position in evidence.clean.attacked() {
            if fell_by(evidence, position, (threat.norm, threat.epsilon), &|cell| !cell.control) {
                continue;
            }
            let margins = white_box(evidence).filter(here).filter_map(|cell| cell.rows[position].as_ref()?.margin);
            if let Some(best) = margins.reduce(f32::max) {
                held += 1;
                stuck += usize::from(best <= evidence.clean.margins[position]);
            }
        }
        compared += held;
        if stuck as f64 > FEW_EXCEPTIONS * held as f64 {
            failures.push(format!("{stuck} of {held} at {}", place(threat)));
        }
    }
    if compared == 0 {
        return Verdict::NotApplicable("no attack with gradients failed");
    }
    let detail = if failures.is_empty() {
        format!("{compared} failed attempts compared")
    } else {
        format!("samples that held and whose margin no attack raised: {}", failures.join("; "))
    };
    Verdict::unless(!failures.is_empty(), detail)
}

fn no_label_leaking(evidence: &Evidence<'_>) -> Verdict {
    let (mut compared, mut failures) = (0, Vec::new());
    for cell in white_box(evidence).filter(|cell| cell.epsilon > 0.0 && !cell.control) {
        if cell.attacked().map(|row| row.queries.backward).max() != Some(1) {
            continue;
        }
        let pairs = cell.rows.iter().zip(&evidence.clean.margins);
        let (mut seen, mut surer) = (0_usize, 0_usize);
        for (margin, clean) in pairs.filter_map(|(row, clean)| Some((row.as_ref()?.margin?, *clean))) {
            seen += 1;
            surer += usize::from(margin < clean);
        }
        compared += seen;
        if 2 * surer > seen {
            failures.push(format!("{} of {seen} under {} at {}:{}", surer, cell.attack, cell.norm, cell.epsilon));
        }
    }
    if compared == 0 {
        return Verdict::NotApplicable("no one-step attack was run");
    }
    let detail = if failures.is_empty() {
        "at no budget is the model surer of more than half of the samples".to_owned()
    } else {
        format!("samples of which the model became surer: {}", failures.join("; "))
    };
    Verdict::unless(!failures.is_empty(), detail)
}

fn success_grows_with_epsilon(evidence: &Evidence<'_>) -> Verdict {
    let (mut compared, mut failures) = (0, Vec::new());
    let attacked = evidence.clean.attacked();
    for entry in evidence.attacks.iter().filter(|entry| !entry.is_control()) {
        let mut curve: Vec<&Cell> = evidence.cells.iter().filter(|cell| cell.attack == entry.name).collect();
        curve.sort_by(|a, b| a.norm.cmp(&b.norm).then(a.epsilon.total_cmp(&b.epsilon)));
        for pair in curve.windows(2).filter(|pair| pair[0].norm == pair[1].norm) {
            compared += 1;
            let alone = |one: &Cell, other: &Cell| {
                let both = |position: usize| one.rows[position].is_some() && other.rows[position].is_some();
                let those = attacked.iter().filter(|&&position| both(position));
                those.filter(|&&position| one.fell(position) && !other.fell(position)).count()
            };
            let (lost, won) = (alone(pair[0], pair[1]), alone(pair[1], pair[0]));
            // One attack may overshoot where another makes up for it: a hole is what no attack fells any more.
            let open = attacked.iter().filter(|&&position| {
                let felled = |cell: &Cell| cell.rows[position].is_some() && cell.fell(position);
                let here = |cell: &&Cell| !cell.control && cell.norm == pair[1].norm && cell.epsilon == pair[1].epsilon;
                felled(pair[0]) && !evidence.cells.iter().filter(here).any(felled)
            });
            if beyond_chance(lost, won) && beyond_chance(open.count(), 0) {
                failures.push(format!(
                    "{} from {}:{} to {}: {lost} samples no longer fall, {won} more do",
                    entry.name, pair[0].norm, pair[0].epsilon, pair[1].epsilon
                ));
            }
        }
    }
    if compared == 0 {
        return Verdict::NotApplicable("no norm was audited at two budgets");
    }
    let detail = if failures.is_empty() {
        format!("at none of {compared} steps to a larger budget do clearly fewer samples fall")
    } else {
        failures.join("; ")
    };
    Verdict::unless(!failures.is_empty(), detail)
}

fn attacks_converged(evidence: &Evidence<'_>) -> Verdict {
    let (mut compared, mut failures) = (0, Vec::new());
    let attacked = evidence.clean.attacked();
    for threat in evidence.threats.iter().filter(|threat| threat.epsilon > 0.0) {
        let here = |cell: &&Cell| cell.norm == threat.norm && cell.epsilon == threat.epsilon && !cell.control;
        let mut near = 0_usize;
        for &position in &attacked {
            if fell_by(evidence, position, (threat.norm, threat.epsilon), &|cell| !cell.control) {
                continue;
            }
            let runs: Vec<(f32, f32)> = white_box(evidence)
                .filter(here)
                .filter_map(|cell| cell.rows[position].as_ref())
                .filter(|row| row.queries.backward >= LEAST_STEPS)
                .filter_map(|row| Some((row.margin?, row.trace.late_improvement.unwrap_or(0.0))))
                .collect();
            compared += usize::from(!runs.is_empty());
            // One attack that came to rest is enough for a sample.
            let moving = runs.iter().all(|(_, late)| *late > UNFINISHED);
            let clean = evidence.clean.margins[position];
            near += usize::from(moving && runs.iter().any(|(margin, late)| margin + late * (margin - clean) >= 0.0));
        }
        if near > 1 && near as f64 > WITHIN_REACH * attacked.len() as f64 {
            failures.push(format!("{near} of {} at {}", attacked.len(), place(threat)));
        }
    }
    if compared == 0 {
        return Verdict::NotApplicable("no iterative attack failed");
    }
    let detail = if failures.is_empty() {
        format!("{compared} failed attempts compared")
    } else {
        format!(
            "samples that held and would fall if the last quarter of the steps went on as it did: {}",
            failures.join("; ")
        )
    };
    Verdict::unless(!failures.is_empty(), detail)
}

fn survives_storage(evidence: &Evidence<'_>) -> Verdict {
    let attacked = evidence.clean.attacked().len() as u64;
    let worst = || evidence.threats.iter().map(|threat| &threat.worst_case);
    let fallen: u64 = worst().map(|worst| attacked - worst.robust_accuracy.hits).sum();
    let stored: u64 = worst().map(|worst| attacked - worst.robust_accuracy_stored.hits).sum();
    if fallen == 0 {
        return Verdict::NotApplicable("nothing fell");
    }
    let share = stored as f64 / fallen as f64;
    Verdict::unless(
        share < 0.5,
        format!("{stored} of {fallen} samples brought down stay so after storage, over all budgets"),
    )
}

fn white_box<'a>(evidence: &'a Evidence<'_>) -> impl Iterator<Item = &'a Cell> {
    evidence.cells.iter().filter(|cell| knowledge(evidence, &cell.attack) == Some(Knowledge::Gradients))
}

fn knowledge(evidence: &Evidence<'_>, attack: &str) -> Option<Knowledge> {
    evidence.attacks.iter().find(|entry| entry.name == attack).map(|entry| entry.info().knowledge)
}

fn success(cell: &CellSummary) -> f64 {
    cell.attack_success_rate.value.unwrap_or(0.0)
}

fn sum(evidence: &Evidence<'_>, count: fn(&CellSummary) -> usize) -> usize {
    evidence.threats.iter().flat_map(|threat| &threat.cells).map(count).sum()
}

fn place(threat: &ThreatResult) -> String {
    format!("{}:{}", threat.norm, threat.epsilon)
}

fn percent(share: f64) -> String {
    format!("{} %", significant(100.0 * share))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nocebo_core::{DifferentiableModel, Label, Norm};

    use super::*;
    use crate::toy::{self, Behaviour, Bent, Mean, ToyAttack};
    use crate::{AuditData, AuditRequest, AuditSettings, CONTROL, evaluate};

    fn found(
        model: &dyn DifferentiableModel,
        data: &AuditData,
        attacks: &[AttackEntry],
        settings: &AuditSettings,
    ) -> Vec<Finding> {
        let provenance = toy::provenance();
        let request = AuditRequest { model, data, attacks, settings, provenance: &provenance };
        evaluate(request, &()).unwrap().audit.findings
    }

    fn failures(model: &dyn DifferentiableModel, attacks: &[AttackEntry], epsilons: &[f32]) -> Vec<String> {
        let found = found(model, &toy::ten(), attacks, &toy::settings(epsilons));
        assert!(found.iter().all(|finding| (finding.status == Status::Fail) != finding.advice.is_empty()));
        found.into_iter().filter(|finding| finding.status == Status::Fail).map(|finding| finding.id).collect()
    }

    fn bent<L, G>(logits: L, gradient: G) -> Bent<L, G>
    where
        L: Fn(&[f32], &mut [f32]),
        G: Fn(&mut [f32]),
    {
        Bent { inner: Mean::new(), logits, gradient }
    }

    fn keep_logits(_: &[f32], _: &mut [f32]) {}

    fn keep_gradient(_: &mut [f32]) {}

    const EPSILONS: [f32; 3] = [2.0, 4.0, 8.0];

    #[test]
    fn an_honest_model_under_honest_attacks_raises_nothing() {
        assert_eq!(failures(&Mean::new(), &toy::attacks(), &EPSILONS), [""; 0]);
    }

    #[test]
    fn a_gradient_of_zeros_is_seen() {
        let shattered = bent(keep_logits, |gradient: &mut [f32]| gradient.fill(0.0));
        let failed = failures(&shattered, &toy::attacks(), &[8.0, 64.0]);
        assert_eq!(
            failed,
            [
                "gradients_available",
                "unlimited_attacks_succeed",
                "noise_weaker_than_attack",
                "attacks_raise_the_margin",
                "robustness_has_its_price"
            ]
        );
        let broken = bent(keep_logits, |gradient: &mut [f32]| gradient[0] = f32::NAN);
        assert_eq!(failures(&broken, &toy::attacks(), &[0.5]), ["gradients_available", "numbers_are_finite"]);
    }

    #[test]
    fn logits_too_large_for_the_cross_entropy_are_seen() {
        // Two findings, of which the first is always there. The sum of cross-entropies is flat at logits of 10 000.
        let mut model = Mean::scaled(1e4);
        model.spec.task = nocebo_core::Task::MultiLabel { thresholds: vec![-1e9, 0.0] };
        let mut data = toy::ten();
        for label in &mut data.labels {
            *label = Label::Findings(vec![true, *label == Label::Class(1)]);
        }
        let found = found(&model, &data, &toy::attacks(), &toy::settings(&[0.5]));
        let saturated = found.iter().find(|finding| finding.id == "loss_does_not_saturate").unwrap();
        assert_eq!(
            (saturated.status, saturated.detail.as_str()),
            (Status::Fail, "8 of 8 cross-entropy gradients are zero")
        );
        assert_eq!(failures(&Mean::scaled(1e4), &toy::attacks(), &[0.5]), [""; 0]);
    }

    #[test]
    fn answers_that_change_are_seen() {
        let asked = AtomicUsize::new(0);
        let random = bent(
            move |_: &[f32], logits: &mut [f32]| logits[1] += asked.fetch_add(1, Ordering::Relaxed) as f32 * 1e-3,
            keep_gradient,
        );
        assert!(failures(&random, &toy::attacks(), &[2.0]).contains(&"answers_repeat".to_owned()));
        // Steady when asked twice at the start (10 clean samples and the 8 to be attacked), another model afterwards.
        let asked = AtomicUsize::new(0);
        let turned = bent(
            move |_: &[f32], logits: &mut [f32]| {
                if asked.fetch_add(1, Ordering::Relaxed) >= 18 {
                    logits[1] += 1e-3;
                }
            },
            keep_gradient,
        );
        assert_eq!(failures(&turned, &toy::attacks(), &[2.0]), ["answers_repeat", "inference_is_static"]);
    }

    #[test]
    fn outputs_that_jump_and_gradients_of_another_function_are_seen() {
        let jumping = bent(
            |point: &[f32], logits: &mut [f32]| {
                logits[1] *= if (point[0] * 777.0).round() as i64 % 2 == 0 { 1.0 } else { 2.0 };
            },
            keep_gradient,
        );
        assert!(failures(&jumping, &toy::attacks(), &[2.0]).contains(&"predictions_are_steady".to_owned()));
        let scaled = bent(keep_logits, |gradient: &mut [f32]| gradient.iter_mut().for_each(|slope| *slope *= 3.0));
        assert_eq!(failures(&scaled, &toy::attacks(), &[2.0]), ["gradients_foretell_change"]);
    }

    #[test]
    fn a_model_that_one_step_makes_surer_is_seen() {
        let attacks =
            [ToyAttack::entry("fgsm", Behaviour::Backwards(1)), ToyAttack::entry("pgd", Behaviour::SignSteps(10))];
        assert_eq!(failures(&Mean::new(), &attacks, &EPSILONS), ["no_label_leaking"]);
    }

    #[test]
    fn probabilities_in_the_place_of_logits_are_seen() {
        let softmax = bent(
            |_: &[f32], logits: &mut [f32]| {
                let odds = logits[1].exp();
                logits.copy_from_slice(&[1.0 / (1.0 + odds), odds / (1.0 + odds)]);
            },
            keep_gradient,
        );
        assert_eq!(failures(&softmax, &toy::attacks(), &[2.0])[0], "outputs_are_logits");
    }

    #[test]
    fn a_few_samples_more_may_be_chance() {
        assert!(!beyond_chance(4, 0) && beyond_chance(5, 0));
        assert!(!beyond_chance(30, 20) && beyond_chance(40, 20) && !beyond_chance(0, 9));
    }

    #[test]
    fn an_iterative_attack_weaker_than_one_step_is_seen() {
        let attacks =
            [ToyAttack::entry("fgsm", Behaviour::SignSteps(1)), ToyAttack::entry("pgd", Behaviour::Backwards(10))];
        assert_eq!(failures(&Mean::new(), &attacks, &EPSILONS), ["iterative_beats_one_step"]);
    }

    #[test]
    fn a_black_box_attack_stronger_than_the_white_box_is_seen() {
        let black_box =
            ToyAttack { behaviour: Behaviour::SignSteps(1), knowledge: Knowledge::Scores, norms: &[Norm::Linf] };
        let attacks = [
            AttackEntry::new("square", serde_json::Value::Null, Box::new(black_box)),
            ToyAttack::entry("pgd", Behaviour::Backwards(10)),
        ];
        assert_eq!(
            failures(&Mean::new(), &attacks, &EPSILONS),
            ["unlimited_attacks_succeed", "gradients_beat_queries", "attacks_raise_the_margin"]
        );
    }

    #[test]
    fn noise_as_good_as_the_attacks_is_seen() {
        let attacks = [ToyAttack::entry("pgd", Behaviour::Backwards(10)), ToyAttack::entry(CONTROL, Behaviour::Noise)];
        assert_eq!(
            failures(&Mean::new(), &attacks, &[64.0]),
            [
                "unlimited_attacks_succeed",
                "noise_weaker_than_attack",
                "attacks_raise_the_margin",
                "robustness_has_its_price"
            ]
        );
    }

    #[test]
    fn noise_that_finds_what_no_attack_finds_is_seen() {
        // An attack on class 0 alone is stronger than noise and still misses what noise finds in class 1.
        let half = [ToyAttack::entry("half", Behaviour::OnClassZero), ToyAttack::entry(CONTROL, Behaviour::Noise)];
        let found = found(&Mean::new(), &toy::ten(), &half, &toy::settings(&[8.0]));
        let noise = found.iter().find(|finding| finding.id == "noise_weaker_than_attack").unwrap();
        let numbers = "success rate at linf:8: noise 12.5 %, best attack 37.5 %, samples that fall to noise alone 1";
        assert_eq!((noise.status, noise.detail.as_str()), (Status::Fail, numbers));
        // The same noise under two names: nothing falls to one alone.
        let twice = [ToyAttack::entry("random", Behaviour::Noise), ToyAttack::entry(CONTROL, Behaviour::Noise)];
        assert!(failures(&Mean::new(), &twice, &[8.0]).contains(&"noise_weaker_than_attack".to_owned()));
    }

    #[test]
    fn an_attack_that_was_still_moving_is_seen() {
        // Twenty steps that reach the wall with the last one, 0.4 short of two samples 3 away.
        let slow = [ToyAttack::entry("slow", Behaviour::SmallSteps(20))];
        assert_eq!(failures(&Mean::new(), &slow, &[2.6]), ["attacks_converged"]);
        // At 2 they are out of reach.
        assert_eq!(failures(&Mean::new(), &slow, &[2.0]), [""; 0]);
        // A second attack that came to rest is enough.
        let both =
            [ToyAttack::entry("slow", Behaviour::SmallSteps(20)), ToyAttack::entry("pgd", Behaviour::SignSteps(20))];
        assert_eq!(failures(&Mean::new(), &both, &[2.6]), [""; 0]);
    }

    #[test]
    fn harm_that_storage_undoes_is_seen() {
        let mut data = toy::data(&[128.0, 128.0]);
        data.samples.values_mut()[3] = 129.0;
        data.samples.values_mut()[7] = 127.0;
        data.labels[0] = Label::Class(1);
        let found = found(&Mean::new(), &data, &toy::attacks(), &toy::settings(&[0.5]));
        let storage = found.iter().find(|finding| finding.id == "survives_storage").unwrap();
        assert_eq!(
            (storage.status, storage.detail.as_str()),
            (Status::Fail, "0 of 2 samples brought down stay so after storage, over all budgets")
        );
    }

    #[test]
    fn a_model_no_better_than_the_most_frequent_label_is_seen() {
        let mut data = toy::data(&[127.0, 126.0, 125.0, 130.0, 131.0]);
        data.labels[2..].fill(Label::Class(0));
        let found = found(&Mean::new(), &data, &toy::attacks(), &toy::settings(&[2.0]));
        assert_eq!((found[0].id.as_str(), found[0].status), ("clean_accuracy_above_majority", Status::Fail));
        assert_eq!(found[0].detail, "clean accuracy 60 %, most frequent label 100 %");
    }

    #[test]
    fn a_model_without_gradients_is_not_judged_by_them() {
        let black_box = ToyAttack { behaviour: Behaviour::Noise, knowledge: Knowledge::Scores, norms: &[Norm::Linf] };
        let attacks = [AttackEntry::new("random search", serde_json::Value::Null, Box::new(black_box))];
        let found = found(&nocebo_core::BlackBox(Mean::new()), &toy::ten(), &attacks, &toy::settings(&[4.0]));
        let skipped: Vec<&str> = found
            .iter()
            .filter(|finding| finding.status == Status::NotApplicable)
            .map(|finding| finding.id.as_str())
            .collect();
        assert_eq!(
            skipped,
            [
                "gradients_available",
                "gradients_foretell_change",
                "predictions_are_steady",
                "unlimited_attacks_succeed",
                "loss_does_not_saturate",
                "noise_weaker_than_attack",
                "iterative_beats_one_step",
                "gradients_beat_queries",
                "transfer_beats_noise",
                "attacks_raise_the_margin",
                "no_label_leaking",
                "robustness_has_its_price",
                "success_grows_with_epsilon",
                "attacks_converged",
            ]
        );
    }
}
