//! Protocols: which attacks an evaluation consists of.
//!
//! | Protocol | What it is |
//! |---|---|
//! | [`Protocol::Quick`] | a look in minutes: short gradient attacks with two losses, a short black-box attack |
//! | [`Protocol::Standard`] | the cascade of AutoAttack where that is defined, and a named variant where it is not |
//! | [`Protocol::Thorough`] | standard with 5 restarts, further losses, a decision-based attack and the least change |
//!
//! ```text
//! K ≥ 4          apgd-ce → apgd-t (DLR, min(9, K − 1) targets) → fab-t → square                 AutoAttack
//! K = 3          apgd-ce → apgd-dlr → apgd-t (margin, 2 targets) → fab-t → square               variant
//! K = 2, logit   apgd-ce → apgd-margin → fab-t → fmn → alma (L1, L2) → square                    variant
//! findings       apgd-ce (all findings) → apgd-margin (nearest) → apgd-t (each) → fab-t → square  variant
//! invent one     as K = 2: DLR needs a true class                                               variant
//! grades         apgd-ce → apgd-t (margin) → apgd-above → apgd-below (expected grade) → fab-t → square   variant
//! a number       apgd-above → apgd-below (signed error) → square                                variant
//! masks          apgd-ce → apgd-margin → apgd-dice → square                                     variant
//! L0             pgd → fmn → sigma-zero (masks: pgd)                                            variant
//! ```
//!
//! 100 steps for each gradient attack (and each of its targets), 1 restart, 5,000 queries for Square; in L1 5 restarts,
//! 5 targets and radii of 3ε and 2ε first. The first attack runs on every sample at every budget, so that signs of masked
//! gradients can be read off it; each later one runs on the samples that are still standing, as
//! computed or as stored (where the budget allows a change that a file can hold): the original knows no storage, and stops
//! at a point that rounding may undo. The figures as computed are the same either way. Noise is the control, and
//! one-step FGSM runs on every sample: it can only lower the figure, and shows label leaking.
//!
//! Sources: Croce & Hein, ICML 2020, arXiv:2003.01690 (the cascade); Croce & Hein, ICML 2021, arXiv:2103.01208 (L1).
//! The variants are ours: the original is undefined below four classes (targeted DLR) and knows neither findings nor masks.
//! With one boundary no other class is left to aim at; attacks that search along the boundary (FMN, ALMA) take the place of
//! the targets: in L2 they bring down samples that the rest leaves standing (`bench/variant_strength.py`). For
//! masks we follow Croce, Singh & Hein, ECCV 2024, arXiv:2306.12941 (SEA) in trying one loss after the other, with losses of
//! our own; attacks that step to a decision boundary do not know masks. Grades and numbers count as fallen where the error is
//! one that the task calls serious or does not tolerate.

use nocebo_core::{Norm, Task};
use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::recipe::AttackSection;
use crate::request::{AuditGoal, CONTROL};

/// How much is tried.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A look in minutes; never a verdict to publish.
    Quick,
    /// The cascade of AutoAttack or the variant for the task.
    Standard,
    /// More of everything.
    Thorough,
}

/// The attacks of a protocol for one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What it may be called in a report.
    pub title: String,
    /// The attacks in order.
    pub attacks: Vec<AttackSection>,
}

/// Norms of AutoAttack but L1, which has other settings.
const SMOOTH: [Norm; 2] = [Norm::L2, Norm::Linf];

impl Protocol {
    /// The attacks for a task, a goal and these norms.
    ///
    /// # Errors
    ///
    /// [`AuditError::Invalid`] for a task that no protocol is made for.
    pub fn plan(self, task: &Task, goal: AuditGoal, norms: &[Norm]) -> Result<Plan, AuditError> {
        let head = Head::of(task, goal)?;
        let mut attacks = vec![AttackSection::new(CONTROL), AttackSection::new("fgsm")];
        match self {
            Self::Quick => {
                attacks.push(first("apgd-ce", "apgd", &SMOOTH_AND_L1, toml::toml! { steps = 20 }));
                attacks.push(later(
                    "apgd-margin",
                    "apgd",
                    &SMOOTH_AND_L1,
                    toml::toml! { steps = 20
                    loss = "margin" },
                ));
                attacks.push(later("square", "square", &SMOOTH_AND_L1, toml::toml! { queries = 200 }));
                attacks.push(first("pgd", "pgd", &[Norm::L0], toml::Table::new()));
            }
            Self::Standard => attacks.extend(cascade(head, 1)),
            Self::Thorough => {
                attacks.extend(cascade(head, 5));
                if matches!(head, Head::Masks | Head::Number) {
                    return Ok(self.finished(head, norms, attacks));
                }
                if head != Head::OneBoundary {
                    attacks.push(later("apgd-margin-5", "apgd", &SMOOTH_AND_L1, restarted("margin", 5)));
                }
                attacks.push(later("fab", "fab", &SMOOTH_AND_L1, toml::toml! { restarts = 5 }));
                attacks.push(later("hop-skip-jump", "hop-skip-jump", &SMOOTH, toml::toml! { queries = 5000 }));
                // On every sample and without a budget: the least change of each.
                attacks.push(first("fmn", "fmn", &[Norm::L1, Norm::L2, Norm::Linf], toml::Table::new()));
            }
        }
        Ok(self.finished(head, norms, attacks))
    }

    /// The plan of those attacks that work in one of the norms.
    fn finished(self, head: Head, norms: &[Norm], mut attacks: Vec<AttackSection>) -> Plan {
        attacks.retain(|attack| attack.norms.as_ref().is_none_or(|of| of.iter().any(|norm| norms.contains(norm))));
        Plan { title: self.title(head, norms), attacks }
    }

    fn title(self, head: Head, norms: &[Norm]) -> String {
        let undefined = norms.contains(&Norm::L0);
        let standard = match head {
            Head::Classes(_) if undefined => "variant of AutoAttack (which knows no L0)".to_owned(),
            Head::Classes(classes @ 4..10) => format!("AutoAttack, standard, with {} targets", classes - 1),
            Head::Classes(4..) => "AutoAttack, standard".to_owned(),
            Head::Classes(classes) => format!("variant of AutoAttack for {classes} classes"),
            Head::OneBoundary => "variant of AutoAttack for one decision boundary".to_owned(),
            Head::Findings(_) => "variant of AutoAttack for several findings".to_owned(),
            Head::Grades(grades) => format!("variant of AutoAttack for {grades} grades in order"),
            Head::Number => "variant of AutoAttack for a number".to_owned(),
            Head::Masks => "variant of AutoAttack for masks".to_owned(),
        };
        match self {
            Self::Quick => "quick look".to_owned(),
            Self::Standard => standard,
            Self::Thorough => format!("more than {standard}"),
        }
    }
}

const SMOOTH_AND_L1: [Norm; 3] = [Norm::L1, Norm::L2, Norm::Linf];

/// What the decision looks like to an attack.
#[derive(Clone, Copy, PartialEq)]
enum Head {
    /// Three or more classes that exclude each other, one of which is to be left.
    Classes(usize),
    /// Two classes, one logit, or one finding that is to be hidden or invented.
    OneBoundary,
    /// Several findings, any of which may change.
    Findings(usize),
    /// Grades in order, an error of several of which counts.
    Grades(usize),
    /// A number, to be moved by more than what is tolerated.
    Number,
    /// One class a position.
    Masks,
}

impl Head {
    fn of(task: &Task, goal: AuditGoal) -> Result<Self, AuditError> {
        match task {
            Task::Ordinal { grades, .. } if goal == AuditGoal::Untargeted => Ok(Self::Grades(*grades)),
            Task::MultiClass { classes } if *classes >= 3 && !matches!(goal, AuditGoal::FalsePositive { .. }) => {
                Ok(Self::Classes(*classes))
            }
            Task::MultiLabel { thresholds } if thresholds.len() > 1 && goal == AuditGoal::Untargeted => {
                Ok(Self::Findings(thresholds.len()))
            }
            Task::MultiClass { .. } | Task::Binary { .. } | Task::MultiLabel { .. } | Task::Ordinal { .. } => {
                Ok(Self::OneBoundary)
            }
            Task::Regression { .. } if goal == AuditGoal::Untargeted => Ok(Self::Number),
            Task::Segmentation(_) => Ok(Self::Masks),
            other => {
                let expected = "a task of classes, findings or masks; name the attacks instead";
                Err(AuditError::invalid("protocol", expected, format!("{other:?}")))
            }
        }
    }

    /// Targets of the targeted attacks.
    fn targets(self) -> usize {
        match self {
            Self::Classes(classes) | Self::Grades(classes) => (classes - 1).min(9),
            Self::Findings(findings) => findings.min(9),
            Self::OneBoundary | Self::Number | Self::Masks => 1,
        }
    }
}

/// The cascade of AutoAttack or its variant; `restarts` is 1 in the standard version.
fn cascade(head: Head, restarts: i64) -> Vec<AttackSection> {
    let (label, loss) = if head == Head::Number { ("apgd-above", "above") } else { ("apgd-ce", "cross_entropy") };
    let mut attacks = vec![
        first(label, "apgd", &SMOOTH, restarted(loss, restarts)),
        first(&format!("{label}-l1"), "apgd", &[Norm::L1], in_l1(restarted(loss, 5))),
        first("pgd", "pgd", &[Norm::L0], toml::Table::new()),
    ];
    let mut both = |label: &str, settings: &dyn Fn(i64) -> toml::Table| {
        let kind = if label.starts_with("apgd-t") { "apgd-t" } else { "apgd" };
        attacks.push(later(label, kind, &SMOOTH, settings(restarts)));
        attacks.push(later(&format!("{label}-l1"), kind, &[Norm::L1], in_l1(settings(restarts.max(5)))));
    };
    let targeted = |loss: &'static str, targets: usize| {
        move |restarts| {
            let mut settings = restarted(loss, restarts);
            settings.insert("targets".to_owned(), (targets as i64).into());
            settings
        }
    };
    match head {
        // Of the targeted attack the original restarts neither version.
        Head::Classes(4..) => {
            attacks.push(later("apgd-t", "apgd-t", &SMOOTH, targeted("dlr", head.targets())(restarts)));
            attacks.push(later("apgd-t-l1", "apgd-t", &[Norm::L1], in_l1(targeted("dlr", head.targets().min(5))(1))));
        }
        Head::Classes(_) => {
            both("apgd-dlr", &|restarts| restarted("dlr", restarts));
            both("apgd-t-margin", &targeted("margin", head.targets()));
        }
        Head::OneBoundary => both("apgd-margin", &|restarts| restarted("margin", restarts)),
        Head::Masks => {
            both("apgd-margin", &|restarts| restarted("margin", restarts));
            both("apgd-dice", &|restarts| restarted("dice", restarts));
        }
        Head::Grades(_) => {
            both("apgd-t-margin", &targeted("margin", head.targets()));
            both("apgd-above", &|restarts| restarted("above", restarts));
            both("apgd-below", &|restarts| restarted("below", restarts));
        }
        Head::Number => both("apgd-below", &|restarts| restarted("below", restarts)),
        Head::Findings(_) => {
            both("apgd-margin", &|restarts| restarted("margin", restarts));
            both("apgd-t-margin", &targeted("margin", head.targets()));
        }
    }
    if matches!(head, Head::Masks | Head::Number) {
        attacks.push(later("square", "square", &SMOOTH_AND_L1, toml::Table::new()));
        return attacks;
    }
    let fab = |targets: usize| {
        let mut walk = toml::Table::new();
        walk.insert("restarts".to_owned(), restarts.into());
        let mut settings = toml::Table::new();
        settings.insert("target_classes".to_owned(), (targets as i64).into());
        settings.insert("fab".to_owned(), walk.into());
        settings
    };
    attacks.push(later("fab-t", "fab-t", &SMOOTH, fab(head.targets())));
    attacks.push(later("fab-t-l1", "fab-t", &[Norm::L1], fab(head.targets().min(5))));
    if head == Head::OneBoundary {
        // The thorough version runs it on every sample.
        if restarts == 1 {
            attacks.push(later("fmn", "fmn", &SMOOTH_AND_L1, toml::Table::new()));
        }
        attacks.push(later("alma", "alma", &[Norm::L1, Norm::L2], toml::Table::new()));
    }
    attacks.push(later("square", "square", &SMOOTH_AND_L1, toml::Table::new()));
    attacks.push(later("fmn-l0", "fmn", &[Norm::L0], toml::Table::new()));
    attacks.push(later("sigma-zero", "sigma-zero", &[Norm::L0], toml::Table::new()));
    attacks
}

fn restarted(loss: &str, restarts: i64) -> toml::Table {
    let mut settings = toml::Table::new();
    settings.insert("loss".to_owned(), loss.into());
    settings.insert("restarts".to_owned(), restarts.into());
    settings
}

fn in_l1(mut settings: toml::Table) -> toml::Table {
    settings.insert("larger_radii".to_owned(), true.into());
    settings
}

/// An attack on every sample.
fn first(label: &str, name: &str, norms: &[Norm], settings: toml::Table) -> AttackSection {
    let label = (label != name).then(|| label.to_owned());
    AttackSection { label, norms: Some(norms.to_vec()), settings, ..AttackSection::new(name) }
}

/// An attack on the samples that are still standing.
fn later(label: &str, name: &str, norms: &[Norm], settings: toml::Table) -> AttackSection {
    AttackSection { cascade: true, ..first(label, name, norms, settings) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(protocol: Protocol, task: &Task, goal: AuditGoal, norm: Norm) -> String {
        let plan = protocol.plan(task, goal, &[norm]).unwrap();
        let attacks = plan.attacks.iter().map(|attack| {
            let settings: Vec<String> = attack.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
            // Every attack of every plan can be made.
            let built = nocebo_attacks::build(&attack.name, attack.settings.clone()).unwrap();
            assert!(built.info().norms.contains(&norm), "{} in {norm}", attack.name);
            format!("{}{}({})", if attack.cascade { "then " } else { "" }, attack.label(), settings.join(", "))
        });
        format!("{norm}, {}: {}", plan.title, attacks.collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn the_cascade_is_that_of_autoattack_where_there_are_four_classes_and_a_named_variant_elsewhere() {
        let tasks = [
            Task::MultiClass { classes: 10 },
            Task::MultiClass { classes: 4 },
            Task::MultiClass { classes: 3 },
            Task::MultiClass { classes: 2 },
            Task::Binary { threshold: 0.0 },
            Task::MultiLabel { thresholds: vec![0.0; 14] },
            Task::Ordinal { grades: 5, serious: 2 },
            Task::Regression { tolerance: 6.0 },
        ];
        let mut lines: Vec<String> =
            tasks.iter().map(|task| told(Protocol::Standard, task, AuditGoal::Untargeted, Norm::Linf)).collect();
        let ten = &tasks[0];
        lines.push(told(Protocol::Standard, ten, AuditGoal::Untargeted, Norm::L1));
        lines.push(told(Protocol::Standard, ten, AuditGoal::Untargeted, Norm::L0));
        lines.push(told(Protocol::Standard, ten, AuditGoal::FalsePositive { finding: 1 }, Norm::L2));
        let masks = crate::toy::segmentation();
        for norm in [Norm::Linf, Norm::L0] {
            lines.push(told(Protocol::Standard, &masks, AuditGoal::Untargeted, norm));
        }
        lines.push(told(Protocol::Thorough, &masks, AuditGoal::FalseNegative { finding: 1 }, Norm::L2));
        lines.push(told(Protocol::Quick, ten, AuditGoal::Untargeted, Norm::Linf));
        lines.push(told(Protocol::Thorough, ten, AuditGoal::Untargeted, Norm::Linf));
        insta::assert_snapshot!(lines.join("\n"));
    }
}
