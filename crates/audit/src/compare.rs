//! Two audits of the same samples, compared sample by sample.
//!
//! ```text
//! b samples that stand in the first audit only, c in the second only, n samples
//! difference   d = (c − b)/n   ± 1.96·√(b + c − (c − b)²/n)/n
//! McNemar      p = min(1, 2·P[X ≤ min(b, c)]),  X ~ Binomial(b + c, ½)                (exact)
//! Holm         the k-th least of m values of p is multiplied by m − k + 1, and never falls below the one before
//! ```
//!
//! Intervals of the two audits may overlap while the difference is clear: the same samples are hard for both.
//!
//! Sources: McNemar, Psychometrika 12 (1947) 153–157; interval: Agresti, Categorical Data Analysis (2013), section 11.1;
//! Holm, Scand. J. Stat. 6 (1979) 65–70.

use std::collections::BTreeMap;
use std::path::Path;

use nocebo_core::Norm;

use crate::audit::Audit;
use crate::folder::RECORDS;
use crate::records::{self, Judged};
use crate::{AuditError, Rate};

/// Both audits under one threat, or without attack.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Norm and budget; none for the clean samples.
    pub threat: Option<(Norm, f32)>,
    /// Samples in scope that stand in the first audit.
    pub first: Rate,
    /// Samples in scope that stand in the second.
    pub second: Rate,
    /// Samples that stand in the first only.
    pub first_only: u64,
    /// Samples that stand in the second only.
    pub second_only: u64,
    /// Second less first, with its 95 % interval.
    pub difference: (f64, f64, f64),
    /// Probability of a split as uneven as this one if both were equal; exact.
    pub p: f64,
    /// The same, corrected for the number of comparisons made (Holm).
    pub p_corrected: f64,
}

/// Compares two audits in their folders: on the clean samples, and in the worst case over attacks under every threat that
/// both tried.
///
/// # Errors
///
/// [`AuditError::Read`] and [`AuditError::Corrupt`] for a folder without a finished audit, [`AuditError::Invalid`] for
/// audits of other samples or another goal.
pub fn compare(first: &Path, second: &Path) -> Result<(Audit, Audit, Vec<Comparison>), AuditError> {
    let (one, other) = (Audit::read(first)?, Audit::read(second)?);
    if one.settings.goal != other.settings.goal {
        let got = format!("{:?} and {:?}", one.settings.goal, other.settings.goal);
        return Err(AuditError::invalid("goals of the audits", "one goal", got));
    }
    let (a, b) = (judged(first)?, judged(second)?);
    let samples = |judged: &Judged| judged.samples.iter().map(|(sample, row)| (*sample, row.label.clone())).collect();
    let (ours, theirs): (BTreeMap<_, _>, BTreeMap<_, _>) = (samples(&a), samples(&b));
    if ours != theirs {
        let shared = ours.iter().filter(|(sample, label)| theirs.get(*sample) == Some(*label)).count();
        let got = format!("{} and {}, of which {shared} agree in index and label", ours.len(), theirs.len());
        return Err(AuditError::invalid("samples of the audits", "the same samples and labels", got));
    }
    let digest =
        |audit: &Audit| audit.provenance.inputs.iter().find(|file| file.role == "data").map(|file| file.sha256.clone());
    if let (Some(a), Some(b)) = (digest(&one), digest(&other))
        && a != b
    {
        return Err(AuditError::invalid("data of the audits", "one SHA-256", format!("{a} and {b}")));
    }
    let mut found = vec![paired(&a, &b, None)];
    for threat in &one.threats {
        let same = |other: &&crate::ThreatResult| other.norm == threat.norm && other.epsilon == threat.epsilon;
        if other.threats.iter().any(|other| same(&other)) {
            found.push(paired(&a, &b, Some((threat.norm, threat.epsilon))));
        }
    }
    holm(&mut found);
    Ok((one, other, found))
}

fn judged(folder: &Path) -> Result<Judged, AuditError> {
    let path = folder.join(RECORDS);
    let bytes = std::fs::read(&path).map_err(AuditError::read(&path))?;
    records::judged(bytes).map_err(|got| AuditError::Corrupt {
        path,
        expected: "the records of an audit".to_owned(),
        got,
    })
}

fn paired(a: &Judged, b: &Judged, threat: Option<(Norm, f32)>) -> Comparison {
    let stands = |judged: &Judged, sample: u64| {
        judged.samples.get(&sample).is_some_and(|row| row.standing && threat.is_none_or(|threat| !row.fell_by(threat)))
    };
    let scope: Vec<u64> = a.samples.iter().filter(|(_, row)| row.in_scope).map(|(sample, _)| *sample).collect();
    let (mut both, mut first_only, mut second_only) = (0_usize, 0_usize, 0_usize);
    for &sample in &scope {
        match (stands(a, sample), stands(b, sample)) {
            (true, true) => both += 1,
            (true, false) => first_only += 1,
            (false, true) => second_only += 1,
            (false, false) => {}
        }
    }
    let (n, split) = (scope.len().max(1) as f64, (first_only + second_only) as f64);
    let gain = second_only as f64 - first_only as f64;
    let half = 1.96 * (split - gain * gain / n).max(0.0).sqrt() / n;
    let p = mcnemar(first_only, second_only);
    Comparison {
        threat,
        first: Rate::new(both + first_only, scope.len()),
        second: Rate::new(both + second_only, scope.len()),
        first_only: first_only as u64,
        second_only: second_only as u64,
        difference: (gain / n, gain / n - half, gain / n + half),
        p,
        p_corrected: p,
    }
}

/// The exact two-sided probability.
fn mcnemar(b: usize, c: usize) -> f64 {
    let (n, least) = (b + c, b.min(c));
    // Logarithms of binomial coefficients: (n over 0) = 1, and from each to the next a factor (n − k)/(k + 1).
    let (mut coefficient, mut tail) = (0.0_f64, 0.0_f64);
    for k in 0..=least {
        tail += (coefficient - n as f64 * std::f64::consts::LN_2).exp();
        coefficient += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

fn holm(comparisons: &mut [Comparison]) {
    let count = comparisons.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| comparisons[a].p.total_cmp(&comparisons[b].p));
    let mut floor = 0.0_f64;
    for (rank, at) in order.into_iter().enumerate() {
        floor = floor.max((comparisons[at].p * (count - rank) as f64).min(1.0));
        comparisons[at].p_corrected = floor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::{self, Mean};
    use crate::{AuditRequest, run};

    #[test]
    fn the_exact_test_by_hand() {
        // 1 against 5: 2·(1 + 6)/64.
        assert!((mcnemar(1, 5) - 14.0 / 64.0).abs() < 1e-12);
        assert_eq!(mcnemar(0, 0), 1.0);
        assert_eq!(mcnemar(3, 3), 1.0);
        assert!((mcnemar(0, 10) - 2.0 / 1024.0).abs() < 1e-12);
        assert!(mcnemar(400, 600) < 1e-9 && mcnemar(400, 600) > 0.0);
    }

    #[test]
    fn corrected_values_rise_with_the_rank() {
        let base = Comparison {
            threat: None,
            first: Rate::new(1, 2),
            second: Rate::new(1, 2),
            first_only: 0,
            second_only: 0,
            difference: (0.0, 0.0, 0.0),
            p: 0.0,
            p_corrected: 0.0,
        };
        let mut all: Vec<Comparison> = [0.04, 0.01, 0.03].map(|p| Comparison { p, ..base.clone() }).to_vec();
        holm(&mut all);
        let corrected: Vec<f64> = all.iter().map(|comparison| comparison.p_corrected).collect();
        // 0.01·3, then 0.03·2, then 0.04·1 raised to the one before.
        assert_eq!(corrected, [0.06, 0.03, 0.06]);
    }

    #[test]
    fn audits_are_paired_by_sample_and_strangers_refused() {
        let (attacks, settings, provenance) = (toy::attacks(), toy::settings(&[2.0, 4.0]), toy::provenance());
        let folders = [0, 1, 2].map(|_| tempfile::tempdir().unwrap());
        // The second model decides 3 grey levels later: 131 counts as class 0, 127 and 125 hold longer.
        let (first, mut second) = (Mean::new(), Mean::new());
        second.spec.class_names.reverse();
        second.spec.class_names.reverse();
        let shifted = toy::Bent {
            inner: second,
            logits: |point: &[f32], logits: &mut [f32]| logits[1] = point.iter().sum::<f32>() / 4.0 - 130.5,
            gradient: |_: &mut [f32]| (),
        };
        let audit = |model: &dyn nocebo_core::DifferentiableModel, data: &crate::AuditData, folder: &Path| {
            let request = AuditRequest { model, data, attacks: &attacks, settings: &settings, provenance: &provenance };
            run(request, folder, &()).unwrap();
        };
        let data = toy::ten();
        audit(&first, &data, folders[0].path());
        audit(&shifted, &data, folders[1].path());
        let (_, _, found) = compare(folders[0].path(), folders[1].path()).unwrap();
        let clean = &found[0];
        // 129 is now decided as class 0: 7 of 10 instead of 8.
        assert_eq!((clean.first.hits, clean.second.hits, clean.first_only, clean.second_only), (8, 7, 1, 0));
        let four = found.iter().find(|comparison| comparison.threat == Some((Norm::Linf, 4.0))).unwrap();
        // Standing at 4: 123, 98, 133, 158 in the first; 125, 123, 98, 158 in the second.
        assert_eq!((four.first.hits, four.second.hits, four.first_only, four.second_only), (4, 4, 1, 1));
        assert_eq!(four.difference.0, 0.0);
        audit(&first, &toy::data(&[127.0, 131.0]), folders[2].path());
        let error = compare(folders[0].path(), folders[2].path()).unwrap_err();
        assert!(error.to_string().contains("the same samples"), "{error}");
    }
}
