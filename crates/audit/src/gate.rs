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
                    [budget] => Some((spec.norm, *budget)),
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
        let Some((norm, budget)) = self.threat else { return Ok(None) };
        let epsilon = budget.resolve(&data.domain, data.standard_deviation.unwrap_or(f32::NAN))?;
        if epsilon.is_nan() {
            return Err(AuditError::GateSyntax {
                gate: self.text.clone(),
                expected: "another unit: the standard deviation of the data is not known".to_owned(),
            });
        }
        Ok(Some((norm, epsilon)))
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
            Comparison::AtLeast => (rate.lower, rate.lower >= self.bound),
            Comparison::Above => (rate.lower, rate.lower > self.bound),
            Comparison::AtMost => (rate.upper, rate.upper <= self.bound),
            Comparison::Below => (rate.upper, rate.upper < self.bound),
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
                let mean = |end: fn(&Rate) -> f64| recalls.iter().map(end).sum::<f64>() / recalls.len() as f64;
                let (lower, upper) = (mean(|rate| rate.lower), mean(|rate| rate.upper));
                Rate { value: metrics.balanced_accuracy, lower, upper, ..unknown }
            }
            _ => metrics.accuracy,
        }
    }
}
