//! Conditions that an audit must meet: `robust_accuracy(linf:1) >= 0.5`.

use std::fmt;
use std::str::FromStr;

use nocebo_core::{Budget, Norm, ThreatSpec};
use serde::{Deserialize, Serialize};

use crate::metrics::{DecisionMetrics, ThreatResult};
use crate::{AuditData, AuditError, Rate, Threat};

/// What a gate looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    CleanAccuracy,
    RobustAccuracy,
    RobustAccuracyStored,
    AttackSuccessRate,
    FalseNegativeRate,
    FalsePositiveRate,
    Sensitivity,
    Specificity,
    BalancedAccuracy,
}

/// Whether a metric belongs to clean samples, to a threat, or to either.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Clean,
    Threat,
    Either,
}

const METRICS: [(&str, Metric, Place); 9] = [
    ("clean_accuracy", Metric::CleanAccuracy, Place::Clean),
    ("robust_accuracy", Metric::RobustAccuracy, Place::Threat),
    ("robust_accuracy_stored", Metric::RobustAccuracyStored, Place::Threat),
    ("attack_success_rate", Metric::AttackSuccessRate, Place::Threat),
    ("false_negative_rate", Metric::FalseNegativeRate, Place::Either),
    ("false_positive_rate", Metric::FalsePositiveRate, Place::Either),
    ("sensitivity", Metric::Sensitivity, Place::Either),
    ("specificity", Metric::Specificity, Place::Either),
    ("balanced_accuracy", Metric::BalancedAccuracy, Place::Either),
];

/// The end of the interval is compared that makes the condition harder to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    Above,
    AtMost,
    Below,
}

const COMPARISONS: [(&str, Comparison); 4] =
    [(">=", Comparison::AtLeast), ("<=", Comparison::AtMost), (">", Comparison::Above), ("<", Comparison::Below)];

/// A condition on one metric, judged at the pessimistic end of its interval.
///
/// `metric(threat) >= bound`, `>`, `<=` or `<`. A metric without a threat is that of the clean samples; a threat is a
/// norm and one epsilon, written as in `--threat`. Under a threat the worst case over all attacks is judged.
///
/// ```
/// # use nocebo_audit::Gate;
/// let gate: Gate = "robust_accuracy(linf:1) >= 0.5".parse()?;
/// assert_eq!(gate.to_string(), "robust_accuracy(linf:1) >= 0.5");
/// assert!("robustness >= 0.5".parse::<Gate>().is_err());
/// # Ok::<(), nocebo_audit::AuditError>(())
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Gate {
    text: String,
    metric: Metric,
    threat: Option<(Norm, Budget)>,
    comparison: Comparison,
    bound: f64,
}

impl fmt::Display for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl From<Gate> for String {
    fn from(gate: Gate) -> Self {
        gate.text
    }
}

impl TryFrom<String> for Gate {
    type Error = AuditError;

    fn try_from(text: String) -> Result<Self, AuditError> {
        text.parse()
    }
}

impl FromStr for Gate {
    type Err = AuditError;

    fn from_str(text: &str) -> Result<Self, AuditError> {
        let refuse = |expected: String| AuditError::GateSyntax { gate: text.to_owned(), expected };
        // The first comparison in the text; of `>` and `>=` at one place the longer, which is listed first.
        let (at, symbol, comparison) = COMPARISONS
            .iter()
            .filter_map(|&(symbol, comparison)| text.find(symbol).map(|at| (at, symbol, comparison)))
            .min_by_key(|(at, symbol, _)| (*at, 2 - symbol.len()))
            .ok_or_else(|| refuse("a comparison >=, >, <= or <".to_owned()))?;
        let (left, right) = (text[..at].trim(), text[at + symbol.len()..].trim());
        let bound: f64 = right.parse().map_err(|_| refuse(format!("a number after {symbol}, not `{right}`")))?;
        if !(0.0..=1.0).contains(&bound) {
            return Err(refuse(format!("a share from 0 to 1 after {symbol}, not `{right}`")));
        }
        let (name, argument) = match left.split_once('(') {
            Some((name, rest)) => {
                let inner = rest.strip_suffix(')').ok_or_else(|| refuse("a closing bracket".to_owned()))?;
                (name.trim(), Some(inner.trim()))
            }
            None => (left, None),
        };
        let Some(&(name, metric, place)) = METRICS.iter().find(|(known, ..)| *known == name) else {
            let known: Vec<&str> = METRICS.iter().map(|(name, ..)| *name).collect();
            return Err(refuse(format!("one of {}, not `{name}`", known.join(", "))));
        };
        let threat = match (argument, place) {
            (None, Place::Threat) => return Err(refuse(format!("a threat, as in {name}(linf:1)"))),
            (Some(_), Place::Clean) => return Err(refuse(format!("{name} without a threat"))),
            (None, _) => None,
            (Some(argument), _) => {
                let spec: ThreatSpec =
                    argument.parse().map_err(|error: nocebo_core::Error| refuse(format!("a threat: {error}")))?;
                match spec.budgets.as_slice() {
                    [budget] => Some((spec.norm, budget.clone())),
                    _ => return Err(refuse(format!("one epsilon, as in {name}(linf:1)"))),
                }
            }
        };
        Ok(Self { text: text.trim().to_owned(), metric, threat, comparison, bound })
    }
}

/// What became of a gate.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct GateResult {
    /// The gate as it was written.
    pub gate: String,
    /// Whether the condition holds at the pessimistic end of the interval.
    pub passed: bool,
    /// The metric as measured; none where there was nothing to measure.
    pub value: Option<f64>,
    /// The end of the interval that was compared.
    pub judged: f64,
    /// The bound.
    pub bound: f64,
}

impl Gate {
    /// Checks that the gate's threat is among those audited, and that its metric exists for the task.
    pub(crate) fn check(&self, threats: &[Threat], data: &AuditData, finding: Option<usize>) -> Result<(), AuditError> {
        let needs_finding = matches!(
            self.metric,
            Metric::FalseNegativeRate | Metric::FalsePositiveRate | Metric::Sensitivity | Metric::Specificity
        );
        if needs_finding && finding.is_none() {
            return Err(AuditError::GateSyntax {
                gate: self.text.clone(),
                expected: "a finding to count: set `finding`, as the task has no class 1 that is the only finding"
                    .to_owned(),
            });
        }
        let Some((norm, epsilon)) = self.resolved(data)? else { return Ok(()) };
        if threats.iter().any(|threat| threat.norm == norm && threat.epsilons.contains(&epsilon)) {
            return Ok(());
        }
        let audited: Vec<String> = threats
            .iter()
            .flat_map(|threat| threat.epsilons.iter().map(|epsilon| format!("{}:{epsilon}", threat.norm)))
            .collect();
        Err(AuditError::GateNotAudited { gate: self.text.clone(), audited: audited.join(", ") })
    }

    fn resolved(&self, data: &AuditData) -> Result<Option<(Norm, f32)>, AuditError> {
        let Some((norm, budget)) = &self.threat else { return Ok(None) };
        let epsilon = budget.resolve(&data.domain, data.standard_deviation.unwrap_or(f32::NAN))?;
        if epsilon.is_nan() {
            return Err(AuditError::GateSyntax {
                gate: self.text.clone(),
                expected: "another unit: the standard deviation of the data is not known".to_owned(),
            });
        }
        Ok(Some((*norm, epsilon)))
    }

    /// Judges the gate. `threats` are the results of the audit that [`Gate::check`] was asked about.
    pub(crate) fn judge(
        &self,
        clean: &DecisionMetrics,
        threats: &[ThreatResult],
        data: &AuditData,
    ) -> Result<GateResult, AuditError> {
        let unknown = Rate::new(0, 0);
        let rate = match self.resolved(data)? {
            None => self.decision_rate(clean),
            Some((norm, epsilon)) => threats
                .iter()
                .find(|threat| threat.norm == norm && threat.epsilon == epsilon)
                .map_or(unknown, |threat| match self.metric {
                    Metric::RobustAccuracy => threat.worst_case.robust_accuracy,
                    Metric::RobustAccuracyStored => threat.worst_case.robust_accuracy_stored,
                    Metric::AttackSuccessRate => threat.worst_case.attack_success_rate,
                    _ => self.decision_rate(&threat.worst_case.decisions),
                }),
        };
        let (judged, passed) = match self.comparison {
            Comparison::AtLeast => (rate.lowest(), rate.lowest() >= self.bound),
            Comparison::Above => (rate.lowest(), rate.lowest() > self.bound),
            Comparison::AtMost => (rate.highest(), rate.highest() <= self.bound),
            Comparison::Below => (rate.highest(), rate.highest() < self.bound),
        };
        Ok(GateResult { gate: self.text.clone(), passed, value: rate.value, judged, bound: self.bound })
    }

    fn decision_rate(&self, metrics: &DecisionMetrics) -> Rate {
        let unknown = Rate::new(0, 0);
        match self.metric {
            Metric::FalseNegativeRate => metrics.false_negative_rate.unwrap_or(unknown),
            Metric::FalsePositiveRate => metrics.false_positive_rate.unwrap_or(unknown),
            Metric::Sensitivity => metrics.false_negative_rate.map_or(unknown, Rate::complement),
            Metric::Specificity => metrics.false_positive_rate.map_or(unknown, Rate::complement),
            // The means of the ends hold more than the interval of the mean: the gate errs on the safe side.
            Metric::BalancedAccuracy => {
                let recalls = metrics.recalls();
                if recalls.is_empty() {
                    return unknown;
                }
                let mean = |end: fn(Rate) -> f64| recalls.iter().copied().map(end).sum::<f64>() / recalls.len() as f64;
                let (lower, upper) = (mean(Rate::lowest), mean(Rate::highest));
                Rate { value: metrics.balanced_accuracy, lower, upper, ..unknown }
            }
            _ => metrics.accuracy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::{self, Mean};
    use crate::{AuditRequest, AuditSettings, evaluate};

    #[test]
    fn gates_are_read_and_written_as_they_were() {
        for text in [
            "clean_accuracy > 0.8",
            "robust_accuracy(linf:1) >= 0.5",
            "robust_accuracy( linf:4/255range )>=.5",
            "false_negative_rate(linf:0.1sd) <= 0.1",
            "sensitivity<1",
        ] {
            let gate: Gate = text.parse().unwrap();
            assert_eq!(gate.to_string(), text);
            let json = serde_json::to_string(&gate).unwrap();
            assert_eq!(serde_json::from_str::<Gate>(&json).unwrap(), gate);
        }
    }

    #[test]
    fn what_cannot_be_judged_is_refused_with_what_was_expected() {
        let refused = [
            "robust_accuracy(linf:1)",
            "robust_accuracy(linf:1) = 0.5",
            "robust_accuracy(linf:1) >= half",
            "robust_accuracy(linf:1) >= 50",
            "robust_accuracy(linf:1 >= 0.5",
            "robust_accuracy >= 0.5",
            "robust_accuracy(linf:1,2) >= 0.5",
            "robust_accuracy(l3:1) >= 0.5",
            "clean_accuracy(linf:1) >= 0.5",
            "robustness >= 0.5",
            "",
        ];
        let messages: Vec<String> = refused.iter().map(|text| text.parse::<Gate>().unwrap_err().to_string()).collect();
        insta::assert_snapshot!(messages.join("\n"));
    }

    /// The toy audit: clean accuracy 8 of 10, robust accuracy 6 of 10 at 2 and 4 of 10 at 4.
    fn judge(text: &str) -> Result<GateResult, AuditError> {
        let settings = AuditSettings { gates: vec![text.parse()?], ..toy::settings(&[2.0, 4.0]) };
        let (model, data, attacks, provenance) = (Mean::new(), toy::ten(), toy::attacks(), toy::provenance());
        let request = AuditRequest {
            model: &model,
            data: &data,
            attacks: &attacks,
            settings: &settings,
            provenance: &provenance,
        };
        Ok(evaluate(request, &())?.audit.gates.remove(0))
    }

    #[test]
    fn the_pessimistic_end_of_the_interval_is_judged() {
        // Wilson, 6 of 10: [0.3127, 0.8318].
        let held = judge("robust_accuracy(linf:2) >= 0.31").unwrap();
        assert!(held.passed && held.value == Some(0.6) && (held.judged - 0.312_67).abs() < 1e-5, "{held:?}");
        assert!(!judge("robust_accuracy(linf:2) >= 0.32").unwrap().passed);
        assert!(!judge("robust_accuracy(linf:2) <= 0.83").unwrap().passed);
        assert!(judge("robust_accuracy(linf:2) < 0.84").unwrap().passed);
        // 2 of 5 missed at 2 grey levels, which is 2/255 of the range and 0.04 standard deviations.
        for threat in ["linf:2", "linf:2/255range", "linf:0.04sd"] {
            let missed = judge(&format!("false_negative_rate({threat}) <= 0.77")).unwrap();
            assert!(missed.passed && missed.value == Some(0.4), "{missed:?}");
        }
        assert!(!judge("false_negative_rate(linf:2) <= 0.76").unwrap().passed);
        assert_eq!(judge("sensitivity(linf:2) >= 0.2").unwrap().value, Some(0.6));
        assert_eq!(judge("clean_accuracy >= 0.4").unwrap().value, Some(0.8));
        assert_eq!(judge("attack_success_rate(linf:4) <= 1").unwrap().value, Some(0.5));
        let balanced = judge("balanced_accuracy(linf:4) >= 0.1").unwrap();
        // Both recalls are 2 of 5: [0.1176, 0.7693].
        assert!(balanced.value == Some(0.4) && (balanced.judged - 0.117_62).abs() < 1e-5, "{balanced:?}");
    }

    #[test]
    fn a_threat_that_is_not_audited_is_an_error() {
        for text in ["robust_accuracy(linf:3) >= 0.5", "robust_accuracy(l2:2) >= 0.5"] {
            let error = judge(text).unwrap_err();
            assert!(matches!(error, AuditError::GateNotAudited { .. }), "{error}");
            assert!(error.to_string().ends_with("expected one of linf:2, linf:4"), "{error}");
        }
        assert!(judge("robust_accuracy(linf:2HU) >= 0.5").is_err());
    }
}
