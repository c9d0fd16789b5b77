//! How well points that were crafted on one model fool another: the transfer matrix.
//!
//! ```text
//! fooled[i][j] = share of the samples that all models decide rightly which model j decides wrongly
//!                at the point that the attack made on model i, rounded to what the file can hold
//! ```
//!
//! The diagonal is the attack on the model that it sees. Every cell has the same samples, so cells can be compared.

use nocebo_core::{Attack, DifferentiableModel, Error, Goal, Label, Model, Samples, Seed, ThreatModel};
use serde::Serialize;

use crate::Rate;

/// What is crafted, and on which samples.
pub struct Transfer<'a> {
    /// The attack, untargeted.
    pub attack: &'a dyn Attack,
    /// Clean samples.
    pub samples: &'a Samples,
    /// True label of each sample.
    pub labels: &'a [Label],
    /// What is allowed.
    pub threat: &'a ThreatModel,
    /// Source of randomness.
    pub seed: Seed,
    /// Samples an attack works on at a time, at least 1; changes memory and speed, not results.
    pub batch_size: usize,
}

/// How well every model's points fool every model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TransferMatrix {
    /// Names of the models, in the order of rows and columns.
    pub models: Vec<String>,
    /// Accuracy of each model on all samples.
    pub clean_accuracy: Vec<Rate>,
    /// For the model that points were crafted on (row) and the one that judges them (column): the samples fooled.
    pub fooled: Vec<Vec<Rate>>,
    /// One record for each model crafted on and sample that all models decide rightly.
    pub records: Vec<TransferRecord>,
}

/// One crafted point.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TransferRecord {
    /// Index of the sample in its data set.
    pub sample: u64,
    /// The model it was crafted on, as a row of the matrix.
    pub crafted_on: usize,
    /// Distance from the clean sample after rounding, in the norm of the threat model.
    pub distance: f64,
    /// Whether each model decides wrongly at the rounded point.
    pub fooled: Vec<bool>,
}

/// Crafts on each of `models` and judges by all of them.
///
/// # Errors
///
/// When models, samples and labels do not fit each other, and whatever the attack or a model returns.
pub fn transfer(
    models: &[(String, &dyn DifferentiableModel)],
    request: &Transfer<'_>,
) -> Result<TransferMatrix, Error> {
    let Transfer { attack, samples, labels, threat, seed, batch_size } = *request;
    let wrong = |model: &dyn DifferentiableModel, points: &Samples, labels: Vec<Label>| -> Result<Vec<bool>, Error> {
        let task = &model.spec().task;
        let goal = Goal::Untargeted { labels };
        goal.check(task, points.len())?;
        Ok(goal.reached(task, &Model::outputs(model, points)?))
    };
    let chunks =
        |rows: &[usize]| -> Vec<Vec<usize>> { rows.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect() };
    let labels_of = |rows: &[usize]| rows.iter().map(|&row| labels[row].clone()).collect::<Vec<_>>();
    if labels.len() != samples.len() {
        return Err(Error::mismatch("number of labels", samples.len(), labels.len()));
    }

    let all: Vec<usize> = (0..samples.len()).collect();
    let mut right = vec![true; samples.len()];
    let mut clean_accuracy = Vec::with_capacity(models.len());
    for (_, model) in models {
        let mut own = Vec::with_capacity(samples.len());
        for rows in chunks(&all) {
            own.extend(wrong(*model, &samples.select(&rows), labels_of(&rows))?);
        }
        right.iter_mut().zip(&own).for_each(|(right, wrong)| *right &= !wrong);
        clean_accuracy.push(Rate::of(own).complement());
    }

    let common: Vec<usize> = all.into_iter().filter(|&row| right[row]).collect();
    let mut records = Vec::with_capacity(models.len() * common.len());
    for (crafted_on, (_, model)) in models.iter().enumerate() {
        for rows in chunks(&common) {
            let clean = samples.select(&rows);
            let goal = Goal::Untargeted { labels: labels_of(&rows) };
            let mut points = attack.run(*model, &clean, &goal, threat, seed)?.perturbed_inputs;
            points.rows_mut().for_each(|row| threat.domain().store(row));
            let judged = models
                .iter()
                .map(|(_, judge)| wrong(*judge, &points, labels_of(&rows)))
                .collect::<Result<Vec<_>, Error>>()?;
            for (position, &sample) in clean.indices().iter().enumerate() {
                records.push(TransferRecord {
                    sample,
                    crafted_on,
                    distance: threat.norm().distance(clean.row(position), points.row(position)),
                    fooled: judged.iter().map(|judge| judge[position]).collect(),
                });
            }
        }
    }
    let cell = |row: usize, column: usize| {
        Rate::of(records.iter().filter(|record| record.crafted_on == row).map(|record| record.fooled[column]))
    };
    let fooled = (0..models.len()).map(|row| (0..models.len()).map(|column| cell(row, column)).collect()).collect();
    let models = models.iter().map(|(name, _)| name.clone()).collect();
    Ok(TransferMatrix { models, clean_accuracy, fooled, records })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Norm, Task};
    use nocebo_testkit::models::Linear;

    /// Two inputs, one logit: present where w·x is above 100.
    fn linear(weights: [f32; 2]) -> Linear {
        let domain = Domain::grey_levels(&[2], 255.0).unwrap();
        Linear::new(domain, Task::Binary { threshold: 0.0 }, vec![weights.to_vec()], vec![-100.0])
    }

    #[test]
    fn a_step_on_one_model_fools_those_that_lean_the_same_way() {
        // The first looks at x₀ alone, the second at x₁ alone, the third at both.
        let models = [linear([1.0, 0.0]), linear([0.0, 1.0]), linear([0.5, 0.5])];
        let named: Vec<(String, &dyn DifferentiableModel)> = models
            .iter()
            .zip(["left", "right", "both"])
            .map(|(m, name)| (name.to_owned(), m as &dyn DifferentiableModel))
            .collect();
        // The third sample is wrong for `right`; the last has too wide a margin.
        let samples = Samples::new(vec![103.0, 103.0, 96.0, 97.0, 120.0, 90.0, 160.0, 160.0], &[2]).unwrap();
        let labels = [1, 0, 1, 1].map(Label::Class);
        let threat = ThreatModel::new(Norm::Linf, 5.0, models[0].spec().domain.clone()).unwrap();
        let attack = nocebo_attacks::build("fgsm", toml::Table::new()).unwrap();
        let matrix = |batch_size| {
            let seed = Seed(1);
            let labels = &labels;
            transfer(
                &named,
                &Transfer { attack: &*attack, samples: &samples, labels, threat: &threat, seed, batch_size },
            )
        };
        let found = matrix(2).unwrap();
        assert_eq!(found, matrix(64).unwrap());
        assert_eq!(found.models, ["left", "right", "both"]);
        let hits = |rates: &[Rate]| rates.iter().map(|rate| (rate.hits, rate.trials)).collect::<Vec<_>>();
        assert_eq!(hits(&found.clean_accuracy), [(4, 4), (3, 4), (4, 4)]);
        // Of three samples two lie within 5 of the boundary; a step of 5 along one axis moves `both` by 2.5 only, which
        // does not suffice for either (margins 3 and 3.5).
        let rows: Vec<_> = found.fooled.iter().map(|row| hits(row)).collect();
        assert_eq!(rows, [[(2, 3), (0, 3), (0, 3)], [(0, 3), (2, 3), (0, 3)], [(2, 3), (2, 3), (2, 3)]]);
        assert_eq!(found.records.len(), 9);
        assert_eq!((found.records[0].sample, found.records[2].sample, found.records[0].distance), (0, 3, 5.0));
        assert!(
            transfer(&named, &Transfer { labels: &labels[..2], ..request(&*attack, &samples, &labels, &threat) })
                .is_err()
        );
    }

    fn request<'a>(
        attack: &'a dyn Attack,
        samples: &'a Samples,
        labels: &'a [Label],
        threat: &'a ThreatModel,
    ) -> Transfer<'a> {
        Transfer { attack, samples, labels, threat, seed: Seed(1), batch_size: 8 }
    }
}
