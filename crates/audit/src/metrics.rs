//! The numbers of an audit: rates with intervals, per cell and in the worst case over attacks.

use std::collections::BTreeMap;

use nocebo_core::{Domain, Label, Norm, Overlap, Queries, Task, has_finding};
use serde::{Deserialize, Serialize};

use crate::bootstrap::Bootstrap;
use crate::cell::{Attacked, Cell, Clean};
use crate::request::AuditGoal;
use crate::{Auc, Rate, Threat, epsilon};

/// How often one class or finding is seen where it is, and not seen where it is not.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ClassRates {
    /// Name of the class or finding.
    pub class: String,
    /// Samples that have it and are decided so (recall).
    pub sensitivity: Rate,
    /// Samples that lack it and are decided so.
    pub specificity: Rate,
    /// How well the score tells the samples that have it from the others. Under attack it is known where one score
    /// decides (two classes, or a goal about one finding): each attacked sample then has the worst score seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auc: Option<Auc>,
}

/// The samples of one subgroup.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Subgroup {
    /// Column of the label table.
    pub group: String,
    /// Value in that column.
    pub value: String,
    /// Samples in scope that are right and, under attack, that no attack brought down.
    pub robust_accuracy: Rate,
    /// Samples with the audit's finding that are decided so.
    pub sensitivity: Option<Rate>,
    /// Samples without the audit's finding that are decided so.
    pub specificity: Option<Rate>,
}

/// The least change that any attack found, for each sample of one norm.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LeastChanges {
    /// Norm of the changes.
    pub norm: Norm,
    /// One distance for each sample that fell with a finite answer, ascending, in the unit of the budget.
    pub distances: Vec<f64>,
    /// Attacked samples that no attack brought down.
    pub standing: usize,
}

/// How far the masks of one class agree with the truth: means over the samples where the class occurs in either.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ClassOverlap {
    /// Name of the class.
    pub class: String,
    /// Mean Dice coefficient.
    pub dice: Option<f64>,
    /// Mean intersection over union.
    pub iou: Option<f64>,
}

/// Quality of the decisions on all samples.
///
/// Under attack a decision counts as right only if no attack in question changed it: sensitivity and specificity are
/// then worst cases, each by itself.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DecisionMetrics {
    /// Samples whose decision is the true label; of masks, those of sufficient quality.
    pub accuracy: Rate,
    /// Mean absolute error of grades (in grades) or numbers (in their unit); under attack the greatest of each sample at allowed
    /// points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_error: Option<f64>,
    /// Agreement of masks with the truth, class by class; under attack the least of each sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlaps: Option<Vec<ClassOverlap>>,
    /// Samples with the audit's finding that are decided not to have it.
    pub false_negative_rate: Option<Rate>,
    /// Samples without the audit's finding that are decided to have it.
    pub false_positive_rate: Option<Rate>,
    /// Mean of the recalls of the classes that occur; with several findings the mean over sensitivities and
    /// specificities.
    pub balanced_accuracy: Option<f64>,
    /// Each class or finding.
    pub classes: Vec<ClassRates>,
    /// Whether the classes exclude each other.
    pub exclusive: bool,
}

impl DecisionMetrics {
    /// The rates that balanced accuracy is the mean of.
    pub(crate) fn recalls(&self) -> Vec<Rate> {
        let of_class = |class: &ClassRates| {
            if self.exclusive { vec![class.sensitivity] } else { vec![class.sensitivity, class.specificity] }
        };
        self.classes.iter().flat_map(of_class).filter(|rate| rate.trials > 0).collect()
    }
}

/// A count over the samples attacked.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Spent {
    /// Mean; none where no sample was attacked.
    pub mean: Option<f64>,
    /// The least count that half of the samples did not exceed.
    pub median: Option<u32>,
    /// The least count that 95 % of the samples did not exceed.
    pub percentile_95: Option<u32>,
    /// Greatest.
    pub max: u32,
}

impl Spent {
    fn of<'a>(attacked: impl Iterator<Item = &'a Attacked>, count: impl Fn(&Queries) -> u32) -> Self {
        let mut counts: Vec<u32> = attacked.map(|row| count(&row.queries)).collect();
        counts.sort_unstable();
        let percentile =
            |percent: usize| (counts.len() * percent).div_ceil(100).checked_sub(1).map(|place| counts[place]);
        let mean = (!counts.is_empty())
            .then(|| counts.iter().map(|&count| f64::from(count)).sum::<f64>() / counts.len() as f64);
        Self { mean, median: percentile(50), percentile_95: percentile(95), max: counts.last().copied().unwrap_or(0) }
    }
}

/// Size of the perturbations that succeeded, in the norm of the cell.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct PerturbationSize {
    /// Mean.
    pub mean: f64,
    /// Median; of an even number the mean of the middle two.
    pub median: f64,
}

impl PerturbationSize {
    fn of(mut sizes: Vec<f64>) -> Option<Self> {
        if sizes.is_empty() {
            return None;
        }
        sizes.sort_by(f64::total_cmp);
        let middle = sizes.len() / 2;
        let median =
            if sizes.len().is_multiple_of(2) { f64::midpoint(sizes[middle - 1], sizes[middle]) } else { sizes[middle] };
        Some(Self { mean: sizes.iter().sum::<f64>() / sizes.len() as f64, median })
    }
}

/// One attack at one budget.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CellSummary {
    /// Name of the attack in this audit.
    pub attack: String,
    /// Whether the attack is only the noise control.
    pub control: bool,
    /// Samples that it was run on. In a cascade those that earlier attacks brought down are passed over, and what follows
    /// about accuracies and decisions is that after this attack and all before it.
    pub attacked: usize,
    /// Whether samples were passed over.
    pub cascaded: bool,
    /// Samples in scope that the attack could not bring where it wanted them, those wrong by themselves excluded.
    pub robust_accuracy: Rate,
    /// The same when the perturbed inputs have been stored.
    pub robust_accuracy_stored: Rate,
    /// Samples that it was run on and that fell.
    pub attack_success_rate: Rate,
    /// Samples that it was run on and that fell with the stored input.
    pub attack_success_rate_stored: Rate,
    /// Decisions of all samples under this attack.
    pub decisions: DecisionMetrics,
    /// Size of the perturbations that succeeded.
    pub perturbation: Option<PerturbationSize>,
    /// Forward passes a sample.
    pub queries: Spent,
    /// Backward passes a sample.
    pub gradient_queries: Spent,
    /// Samples for which the attack claims success and the audit does not see it.
    pub claimed_but_not_confirmed: usize,
    /// Samples whose allowed adversarial point the attack had found but did not return.
    pub found_but_not_returned: usize,
    /// Samples whose returned point the threat model does not allow. At infinite budget (minimum-norm attacks) being
    /// farther than epsilon is no fault and not counted.
    pub outside_threat: usize,
    /// Samples on which the model or its gradient was not finite; they count as fallen.
    pub not_finite: usize,
}

/// The worst case over all attacks but the control, at this budget or a smaller one of the same norm.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct WorstCase {
    /// Samples in scope that no attack brought down.
    pub robust_accuracy: Rate,
    /// The same when the perturbed inputs have been stored.
    pub robust_accuracy_stored: Rate,
    /// Samples attacked that fell to any attack.
    pub attack_success_rate: Rate,
    /// Decisions of all samples under the worst of the attacks.
    pub decisions: DecisionMetrics,
    /// Each subgroup.
    #[serde(default)]
    pub subgroups: Vec<Subgroup>,
}

/// Everything about one norm and one budget.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ThreatResult {
    /// Norm of a change.
    pub norm: Norm,
    /// Greatest change, in the unit of the data; infinity for no limit but the bounds, `inf` in files.
    #[serde(with = "epsilon")]
    pub epsilon: f32,
    /// The same in words, with its relation to the range of the data.
    pub budget: String,
    /// Worst case over attacks.
    pub worst_case: WorstCase,
    /// Each attack, the control last.
    pub cells: Vec<CellSummary>,
}

/// What the metrics need to know about the samples.
pub(crate) struct Subjects<'a> {
    pub(crate) labels: &'a [Label],
    pub(crate) clean: &'a Clean,
    /// Logits of the clean samples.
    pub(crate) outputs: &'a [Vec<f32>],
    pub(crate) class_names: &'a [String],
    pub(crate) task: &'a Task,
    pub(crate) goal: AuditGoal,
    pub(crate) finding: Option<usize>,
    pub(crate) domain: &'a Domain,
    pub(crate) groups: &'a BTreeMap<String, Vec<String>>,
    pub(crate) bootstrap: &'a Bootstrap,
}

/// For each sample and class: whether some attack hid it, or made it appear.
#[derive(Clone)]
struct Harm {
    wrong: Vec<bool>,
    hidden: Vec<Vec<bool>>,
    invented: Vec<Vec<bool>>,
    /// For each sample and class of a segmentation the overlap with the least Dice so far.
    overlaps: Option<Vec<Vec<Overlap>>>,
    /// Greatest error so far of each sample of a task with an order.
    errors: Option<Vec<f64>>,
}

impl Harm {
    fn none(subjects: &Subjects<'_>) -> Self {
        let samples = subjects.labels.len();
        let none = vec![vec![false; subjects.class_names.len()]; samples];
        let overlaps = subjects.clean.overlaps.clone();
        let decided = subjects.labels.iter().zip(&subjects.clean.decisions);
        let errors = decided.map(|(truth, decision)| subjects.task.error(truth, decision)).collect();
        Self { wrong: vec![false; samples], hidden: none.clone(), invented: none, overlaps, errors }
    }

    fn add(&mut self, subjects: &Subjects<'_>, cell: &Cell) {
        for (position, row) in cell.rows.iter().enumerate() {
            let Some(row) = row else { continue };
            self.add_overlaps(position, row);
            if let (Some(errors), Some(decision), true) =
                (&mut self.errors, &row.decision, row.finite && row.within_threat)
            {
                let error = subjects.task.error(&subjects.labels[position], decision).unwrap_or(0.0);
                errors[position] = errors[position].max(error);
            }
            if !row.fell() {
                continue;
            }
            let decision = row.decision.as_ref().filter(|_| row.finite);
            self.wrong[position] |=
                decision.is_none_or(|decision| !subjects.is_right(position, decision, row.overlaps.as_deref()));
            for class in 0..self.hidden[position].len() {
                self.hidden[position][class] |= decision.is_none_or(|decision| !has_finding(decision, class));
                self.invented[position][class] |= decision.is_none_or(|decision| has_finding(decision, class));
            }
        }
    }
}

impl Harm {
    /// Every allowed point counts here, whether or not the goal was reached there. A broken answer agrees nowhere.
    fn add_overlaps(&mut self, position: usize, row: &Attacked) {
        let Some(worst) = self.overlaps.as_mut().map(|overlaps| &mut overlaps[position]) else { return };
        for (class, worst) in worst.iter_mut().enumerate() {
            let found = row.overlaps.as_ref().filter(|_| row.finite).map(|overlaps| overlaps[class]);
            let next = match found {
                Some(_) if !row.within_threat => continue,
                Some(overlap) => overlap,
                None => Overlap { decision: 0, both: 0, ..*worst },
            };
            if next.dice().unwrap_or(1.0) < worst.dice().unwrap_or(1.0) {
                *worst = next;
            }
        }
    }
}

/// Whether a rate also gets its interval over patients: worth its time for the figures that are read first.
#[derive(Clone, Copy, PartialEq)]
enum Intervals {
    Wilson,
    AndByPatient,
}

impl Subjects<'_> {
    /// Decisions on the clean samples.
    pub(crate) fn clean_decisions(&self) -> DecisionMetrics {
        let mut found = self.decisions(&Harm::none(self), Intervals::AndByPatient);
        if matches!(self.task, Task::Segmentation(_)) {
            return found;
        }
        for (class, rates) in found.classes.iter_mut().enumerate() {
            let scores = self.outputs.iter().zip(self.labels);
            let scores: Vec<(f32, bool)> = scores
                .map(|(logits, label)| (score_of_class(self.task, logits, class), has_finding(label, class)))
                .collect();
            rates.auc = Auc::of(&scores, self.bootstrap);
        }
        found
    }

    fn is_right(&self, position: usize, decision: &Label, overlaps: Option<&[Overlap]>) -> bool {
        match (self.task, overlaps) {
            (Task::Segmentation(task), Some(overlaps)) => task.is_right(overlaps),
            _ => self.task.is_right(&self.labels[position], decision),
        }
    }

    fn class_overlaps(&self, overlaps: &[Vec<Overlap>]) -> Vec<ClassOverlap> {
        let mean = |class: usize, of: fn(&Overlap) -> Option<f64>| {
            let values: Vec<f64> = overlaps.iter().filter_map(|sample| of(&sample[class])).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let names = self.class_names.iter().enumerate();
        names
            .map(|(class, name)| ClassOverlap {
                class: name.clone(),
                dice: mean(class, Overlap::dice),
                iou: mean(class, Overlap::iou),
            })
            .collect()
    }

    /// Each subgroup of the clean samples.
    pub(crate) fn clean_subgroups(&self) -> Vec<Subgroup> {
        let none = vec![false; self.labels.len()];
        self.subgroups(&none, &Harm::none(self))
    }

    fn subgroups(&self, fallen: &[bool], harm: &Harm) -> Vec<Subgroup> {
        let mut found = Vec::new();
        for (group, column) in self.groups {
            let mut values: Vec<&String> = column.iter().collect();
            values.sort();
            values.dedup();
            for value in values {
                let members = || (0..column.len()).filter(|&at| column[at] == *value);
                let of = |has: bool, lost: &[Vec<bool>]| {
                    self.finding.map(|finding| {
                        let those = members().filter(|&at| has_finding(&self.labels[at], finding) == has);
                        let right =
                            |at: usize| has_finding(&self.clean.decisions[at], finding) == has && !lost[at][finding];
                        self.rate(Intervals::AndByPatient, those.map(|at| (at, right(at))))
                    })
                };
                let scope = members().filter(|&at| self.clean.in_scope[at]);
                found.push(Subgroup {
                    group: group.clone(),
                    value: value.clone(),
                    robust_accuracy: self
                        .rate(Intervals::AndByPatient, scope.map(|at| (at, self.clean.standing[at] && !fallen[at]))),
                    sensitivity: of(true, &harm.hidden),
                    specificity: of(false, &harm.invented),
                });
            }
        }
        found
    }

    fn rate(&self, intervals: Intervals, flags: impl IntoIterator<Item = (usize, bool)>) -> Rate {
        match intervals {
            Intervals::Wilson => Rate::of(flags.into_iter().map(|(_, flag)| flag)),
            Intervals::AndByPatient => self.bootstrap.rate(flags),
        }
    }

    /// Area under the curve of the audit's finding when every attacked sample has the worst score in these cells.
    fn worst_auc(&self, worst_margins: &[f32]) -> Option<(usize, Auc)> {
        let finding = self.finding?;
        let one_score = self.goal != AuditGoal::Untargeted
            || (self.task.classes() == 2 && !matches!(self.task, Task::MultiLabel { .. }));
        if !one_score {
            return None;
        }
        let scores: Vec<(f32, bool)> = worst_margins
            .iter()
            .zip(self.labels)
            .map(|(margin, label)| {
                let has = has_finding(label, finding);
                let hides = match self.goal {
                    AuditGoal::Untargeted => has,
                    AuditGoal::FalseNegative { .. } => true,
                    AuditGoal::FalsePositive { .. } => false,
                };
                (if hides { -margin } else { *margin }, has)
            })
            .collect();
        Auc::of(&scores, self.bootstrap).map(|auc| (finding, auc))
    }

    fn decisions(&self, harm: &Harm, intervals: Intervals) -> DecisionMetrics {
        let (labels, decided) = (self.labels, &self.clean.decisions);
        let positions = 0..labels.len();
        let overlaps = |at: usize| self.clean.overlaps.as_ref().map(|overlaps| overlaps[at].as_slice());
        let right = |at: usize| self.is_right(at, &decided[at], overlaps(at)) && !harm.wrong[at];
        let accuracy = self.rate(intervals, positions.clone().map(|at| (at, right(at))));
        let classes: Vec<ClassRates> = self
            .class_names
            .iter()
            .enumerate()
            .map(|(class, name)| {
                let (has, lacks): (Vec<usize>, Vec<usize>) =
                    positions.clone().partition(|&at| has_finding(&labels[at], class));
                let seen = |at: usize| has_finding(&decided[at], class) && !harm.hidden[at][class];
                let unseen = |at: usize| !has_finding(&decided[at], class) && !harm.invented[at][class];
                ClassRates {
                    class: name.clone(),
                    sensitivity: self.rate(intervals, has.into_iter().map(|at| (at, seen(at)))),
                    specificity: self.rate(intervals, lacks.into_iter().map(|at| (at, unseen(at)))),
                    auc: None,
                }
            })
            .collect();
        let of_finding =
            |rate: fn(&ClassRates) -> Rate| self.finding.map(|finding| rate(&classes[finding]).complement());
        let mut metrics = DecisionMetrics {
            accuracy,
            mean_error: harm.errors.as_ref().map(|errors| errors.iter().sum::<f64>() / errors.len().max(1) as f64),
            overlaps: harm.overlaps.as_ref().map(|overlaps| self.class_overlaps(overlaps)),
            false_negative_rate: of_finding(|class| class.sensitivity),
            false_positive_rate: of_finding(|class| class.specificity),
            balanced_accuracy: None,
            exclusive: matches!(labels.first(), Some(Label::Class(_))),
            classes,
        };
        let recalls: Vec<f64> = metrics.recalls().iter().filter_map(|rate| rate.value).collect();
        metrics.balanced_accuracy = (!recalls.is_empty()).then(|| recalls.iter().sum::<f64>() / recalls.len() as f64);
        metrics
    }

    /// Results of every threat. `cells` of one norm and budget are in the order of the attacks; `at_infinity` names the
    /// attacks that were run without a budget.
    pub(crate) fn threats(&self, threats: &[Threat], cells: &[Cell], at_infinity: &[&str]) -> Vec<ThreatResult> {
        let mut results = Vec::new();
        for threat in threats {
            let mut worst = Worst::new(self);
            for &epsilon in &threat.epsilons {
                let mut here: Vec<&Cell> =
                    cells.iter().filter(|cell| cell.norm == threat.norm && cell.epsilon == epsilon).collect();
                here.sort_by_key(|cell| cell.control);
                let mut summaries = Vec::new();
                for cell in here {
                    let mut alone = Worst::new(self);
                    alone.add(self, cell);
                    if !cell.control {
                        worst.add(self, cell);
                    }
                    let passed_over = (0..self.labels.len()).any(|at| cell.passed_over(self.clean, at));
                    let unlimited = at_infinity.contains(&cell.attack.as_str());
                    summaries.push(self.summary(
                        cell,
                        if passed_over { &worst } else { &alone },
                        passed_over,
                        unlimited,
                    ));
                }
                let mut decisions = self.decisions(&worst.harm, Intervals::AndByPatient);
                if let Some((finding, auc)) = self.worst_auc(&worst.margins) {
                    decisions.classes[finding].auc = Some(auc);
                }
                let worst_case = WorstCase {
                    robust_accuracy: self.robust(Intervals::AndByPatient, &worst.fallen),
                    robust_accuracy_stored: self.robust(Intervals::AndByPatient, &worst.fallen_stored),
                    attack_success_rate: Rate::of(self.clean.attacked().into_iter().map(|at| worst.fallen[at])),
                    decisions,
                    subgroups: self.subgroups(&worst.fallen, &worst.harm),
                };
                results.push(ThreatResult {
                    norm: threat.norm,
                    epsilon,
                    budget: budget_in_words(threat.norm, epsilon, self.domain),
                    worst_case,
                    cells: summaries,
                });
            }
        }
        results
    }

    /// The least change found for each sample in each norm.
    pub(crate) fn least_changes(&self, threats: &[Threat], cells: &[Cell]) -> Vec<LeastChanges> {
        let of = |norm: Norm| {
            let here: Vec<&Cell> = cells.iter().filter(|cell| cell.norm == norm && !cell.control).collect();
            let (mut distances, mut standing) = (Vec::new(), 0);
            for at in self.clean.attacked() {
                let rows = here.iter().filter_map(|cell| cell.rows[at].as_ref());
                let least = rows.clone().filter(|row| row.success).filter_map(|row| row.distance(norm));
                match least.reduce(f64::min) {
                    Some(distance) => distances.push(distance),
                    None => standing += usize::from(!rows.clone().any(Attacked::fell)),
                }
            }
            distances.sort_by(f64::total_cmp);
            LeastChanges { norm, distances, standing }
        };
        threats.iter().map(|threat| of(threat.norm)).collect()
    }

    fn summary(&self, cell: &Cell, so_far: &Worst, cascaded: bool, unlimited: bool) -> CellSummary {
        let count = |is: &dyn Fn(&Attacked) -> bool| cell.attacked().filter(|row| is(row)).count();
        CellSummary {
            attack: cell.attack.clone(),
            control: cell.control,
            attacked: cell.attacked().count(),
            cascaded,
            robust_accuracy: self.robust(Intervals::Wilson, &so_far.fallen),
            robust_accuracy_stored: self.robust(Intervals::Wilson, &so_far.fallen_stored),
            attack_success_rate: Rate::of(cell.attacked().map(Attacked::fell)),
            attack_success_rate_stored: Rate::of(cell.attacked().map(Attacked::fell_stored)),
            decisions: self.decisions(&so_far.harm, Intervals::Wilson),
            perturbation: PerturbationSize::of(
                cell.attacked().filter(|row| row.success).filter_map(|row| row.distance(cell.norm)).collect(),
            ),
            queries: Spent::of(cell.attacked(), |queries| queries.forward),
            gradient_queries: Spent::of(cell.attacked(), |queries| queries.backward),
            claimed_but_not_confirmed: count(&|row| row.claimed && !row.success),
            found_but_not_returned: count(&|row| row.trace.reached && !row.fell() && !unlimited),
            outside_threat: if unlimited { 0 } else { count(&|row| row.finite && !row.within_threat) },
            not_finite: count(&|row| !row.finite),
        }
    }

    fn robust(&self, intervals: Intervals, fallen: &[bool]) -> Rate {
        let scope = (0..fallen.len()).filter(|&at| self.clean.in_scope[at]);
        self.rate(intervals, scope.map(|at| (at, self.clean.standing[at] && !fallen[at])))
    }
}

/// The worst that some cells did to each sample.
struct Worst {
    harm: Harm,
    fallen: Vec<bool>,
    fallen_stored: Vec<bool>,
    /// Greatest margin of the goal, from the clean one on.
    margins: Vec<f32>,
}

impl Worst {
    fn new(subjects: &Subjects<'_>) -> Self {
        let samples = subjects.labels.len();
        Self {
            harm: Harm::none(subjects),
            fallen: vec![false; samples],
            fallen_stored: vec![false; samples],
            margins: subjects.clean.margins.clone(),
        }
    }

    fn add(&mut self, subjects: &Subjects<'_>, cell: &Cell) {
        self.harm.add(subjects, cell);
        for (at, row) in cell.rows.iter().enumerate() {
            let Some(row) = row else { continue };
            self.fallen[at] |= row.fell();
            self.fallen_stored[at] |= row.fell_stored();
            // A model that breaks says the worst; a point outside the threat says nothing.
            let margin = if row.finite { row.margin.filter(|_| row.within_threat) } else { Some(f32::MAX) };
            self.margins[at] = margin.map_or(self.margins[at], |margin| margin.max(self.margins[at]));
        }
    }
}

/// A score that grows with the probability of a class or finding.
fn score_of_class(task: &Task, logits: &[f32], class: usize) -> f32 {
    match task {
        // Log-odds: free of the ties that rounded probabilities have.
        Task::MultiClass { .. } | Task::Ordinal { .. } => {
            let others = logits.iter().enumerate().filter(|(other, _)| *other != class).map(|(_, logit)| *logit);
            let greatest = others.clone().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = others.map(|logit| f64::from(logit - greatest).exp()).sum();
            (f64::from(logits[class]) - f64::from(greatest) - sum.ln()) as f32
        }
        Task::Binary { .. } => {
            if class == 1 {
                logits[0]
            } else {
                -logits[0]
            }
        }
        _ => logits[class],
    }
}

/// An epsilon in the unit of the data and relative to the range between the bounds.
///
/// For L1 and L2 the share is that of the mean and root-mean-square change an element, for L0 that of the elements.
pub fn budget_in_words(norm: Norm, epsilon: f32, domain: &Domain) -> String {
    let unit = domain.unit().symbol();
    let (budget, elements) = (f64::from(epsilon), domain.elements() as f64);
    let range = f64::from(domain.range());
    if epsilon.is_infinite() {
        return format!("no limit but the bounds of the data, {range} {unit} apart");
    }
    let percent = |share: f64| format!("{} %", significant(100.0 * share));
    match norm {
        Norm::Linf => format!("at most {epsilon} {unit} an element, {} of the range", percent(budget / range)),
        Norm::L2 => format!(
            "an L2 norm of {epsilon} {unit}, root mean square {} of the range an element",
            percent(budget / range / elements.sqrt())
        ),
        Norm::L1 => {
            format!(
                "an L1 norm of {epsilon} {unit}, mean {} of the range an element",
                percent(budget / range / elements)
            )
        }
        Norm::L0 => format!(
            "at most {} of {elements} elements ({}), each anywhere in its bounds",
            budget.floor(),
            percent(budget.floor() / elements)
        ),
    }
}

/// Three significant digits, without trailing zeros.
pub(crate) fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{DomainConfig, Field, Unit};

    #[test]
    fn a_median_of_an_even_number_lies_between() {
        assert_eq!(PerturbationSize::of(vec![]), None);
        let odd = PerturbationSize::of(vec![5.0, 1.0, 3.0]).unwrap();
        assert_eq!((odd.mean, odd.median), (3.0, 3.0));
        let even = PerturbationSize::of(vec![8.0, 1.0, 3.0, 4.0]).unwrap();
        assert_eq!((even.mean, even.median), (4.0, 3.5));
    }

    /// Three exclusive classes, or three findings.
    fn decisions(labels: &[Label], decided: &[Label], harm: Option<&Cell>) -> DecisionMetrics {
        let clean = Clean {
            decisions: decided.to_vec(),
            overlaps: None,
            margins: vec![-1.0; labels.len()],
            in_scope: vec![true; labels.len()],
            standing: vec![true; labels.len()],
        };
        let domain = Domain::grey_levels(&[1], 255.0).unwrap();
        let names = ["a", "b", "c"].map(str::to_owned);
        let bootstrap = Bootstrap::new(labels.len(), None, nocebo_core::Seed(1));
        let subjects = Subjects {
            labels,
            clean: &clean,
            outputs: &[],
            class_names: &names,
            task: &Task::MultiClass { classes: 3 },
            goal: AuditGoal::Untargeted,
            finding: Some(1),
            domain: &domain,
            groups: &BTreeMap::new(),
            bootstrap: &bootstrap,
        };
        let mut all = Harm::none(&subjects);
        if let Some(cell) = harm {
            all.add(&subjects, cell);
        }
        subjects.decisions(&all, Intervals::AndByPatient)
    }

    fn fell(decision: Label) -> Attacked {
        Attacked {
            claimed: true,
            within_threat: true,
            finite: true,
            success: true,
            success_stored: true,
            decision: Some(decision),
            overlaps: None,
            margin: Some(1.0),
            distances: Some([1.0; 4]),
            queries: Queries::default(),
            trace: crate::cell::Trace::default(),
        }
    }

    fn cell(rows: Vec<Option<Attacked>>) -> Cell {
        Cell { attack: "x".to_owned(), control: false, norm: Norm::Linf, epsilon: 1.0, rows }
    }

    fn counts(rate: Rate) -> (u64, u64) {
        (rate.hits, rate.trials)
    }

    #[test]
    fn a_class_that_an_attack_leaves_or_enters_is_hidden_or_invented() {
        let classes = |list: &[usize]| list.iter().map(|&class| Label::Class(class)).collect::<Vec<_>>();
        let labels = classes(&[0, 0, 1, 1, 2]);
        let decided = classes(&[0, 1, 1, 1, 2]);
        let clean = decisions(&labels, &decided, None);
        assert_eq!(counts(clean.accuracy), (4, 5));
        assert_eq!(clean.balanced_accuracy, Some((0.5 + 1.0 + 1.0) / 3.0));
        assert_eq!(
            (clean.false_negative_rate.map(counts), clean.false_positive_rate.map(counts)),
            (Some((0, 2)), Some((1, 3)))
        );
        // The third sample leaves class 1 for 0, the last enters class 1.
        let attacked = decisions(
            &labels,
            &decided,
            Some(&cell(vec![None, None, Some(fell(Label::Class(0))), None, Some(fell(Label::Class(1)))])),
        );
        assert_eq!(counts(attacked.accuracy), (2, 5));
        assert_eq!(attacked.false_negative_rate.map(counts), Some((1, 2)));
        assert_eq!(attacked.false_positive_rate.map(counts), Some((2, 3)));
        let of_class_0 = &attacked.classes[0];
        assert_eq!((counts(of_class_0.sensitivity), counts(of_class_0.specificity)), ((1, 2), (2, 3)));
    }

    #[test]
    fn findings_are_counted_apart() {
        let findings = |text: &str| Label::Findings(text.bytes().map(|byte| byte == b'1').collect());
        let labels = [findings("110"), findings("000")];
        let decided = [findings("110"), findings("100")];
        let clean = decisions(&labels, &decided, None);
        assert_eq!(counts(clean.accuracy), (1, 2));
        // Sensitivities 1, 1 (none for c), specificities 0, 1, 1.
        assert_eq!(clean.balanced_accuracy, Some(4.0 / 5.0));
        let attacked = decisions(&labels, &decided, Some(&cell(vec![Some(fell(findings("101"))), None])));
        assert_eq!(attacked.false_negative_rate.map(counts), Some((1, 1)));
        assert_eq!(counts(attacked.classes[2].specificity), (1, 2));
        assert_eq!(counts(attacked.classes[0].sensitivity), (1, 1));
    }

    #[test]
    fn budgets_are_told_in_the_unit_and_as_a_share_of_the_range() {
        let hounsfield: Domain = DomainConfig {
            shape: vec![1, 10, 10],
            unit: Unit::Hounsfield,
            lower: Field::Uniform(-1000.0),
            upper: Field::Uniform(1000.0),
            resolution: Field::Uniform(1.0),
            region: None,
        }
        .try_into()
        .unwrap();
        let told = [Norm::Linf, Norm::L2, Norm::L1, Norm::L0].map(|norm| budget_in_words(norm, 10.0, &hounsfield));
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn three_digits_are_enough() {
        let shown = [0.0, 1.0, 100.0, 12345.0, 1.568_627, 0.039_215, 0.000_123_456, 99.96].map(significant);
        assert_eq!(shown, ["0", "1", "100", "12345", "1.57", "0.0392", "0.000123", "100"]);
    }
}
