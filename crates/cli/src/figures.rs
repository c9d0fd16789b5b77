//! How good a model is on clean samples.

use nocebo_core::segmentation::mean_dice;
use nocebo_core::{DifferentiableModel, Error, Label, Overlap, Task, has_finding};
use nocebo_data::Dataset;

/// The number that ranks checkpoints.
#[derive(Clone, Copy)]
pub(crate) enum Measure {
    /// Share of the samples that are decided right.
    Accuracy,
    /// Mean over the classes that occur of the share of their samples that are decided right.
    BalancedAccuracy,
    /// Mean over the samples of the mean Dice over classes.
    MeanDice,
}

impl Measure {
    pub(crate) fn of(task: &Task, balanced: bool) -> Self {
        match task {
            Task::Segmentation(_) => Self::MeanDice,
            _ if balanced => Self::BalancedAccuracy,
            _ => Self::Accuracy,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::BalancedAccuracy => "balanced accuracy",
            Self::MeanDice => "mean Dice",
        }
    }

    pub(crate) fn on(self, model: &dyn DifferentiableModel, data: &Dataset) -> Result<f64, Error> {
        Ok(self.of_decisions(&model.spec().task, data, &decisions(model, data)?))
    }

    fn of_decisions(self, task: &Task, data: &Dataset, decided: &[Label]) -> f64 {
        match self {
            Self::Accuracy => {
                let right =
                    data.labels().iter().zip(decided).filter(|(label, decision)| task.is_right(label, decision));
                right.count() as f64 / data.len() as f64
            }
            Self::BalancedAccuracy => {
                let shares: Vec<f64> = sensitivities(data, decided)
                    .into_iter()
                    .filter(|(_, of)| *of > 0)
                    .map(|(hits, of)| hits as f64 / of as f64)
                    .collect();
                shares.iter().sum::<f64>() / shares.len().max(1) as f64
            }
            Self::MeanDice => {
                let overlaps = overlaps(task, data, decided);
                overlaps.iter().map(|overlaps| mean_dice(overlaps)).sum::<f64>() / data.len() as f64
            }
        }
    }
}

fn decisions(model: &dyn DifferentiableModel, data: &Dataset) -> Result<Vec<Label>, Error> {
    let outputs = model.outputs(data.samples())?;
    Ok(outputs.rows().map(|logits| model.spec().task.decide(logits)).collect())
}

/// For each class or finding: samples that have it and are decided so, and samples that have it.
fn sensitivities(data: &Dataset, decided: &[Label]) -> Vec<(usize, usize)> {
    let of = |class: usize| {
        let has: Vec<usize> = (0..data.len()).filter(|&row| has_finding(&data.labels()[row], class)).collect();
        (has.iter().filter(|&&row| has_finding(&decided[row], class)).count(), has.len())
    };
    (0..data.class_names().len()).map(of).collect()
}

fn overlaps(task: &Task, data: &Dataset, decided: &[Label]) -> Vec<Vec<Overlap>> {
    let pairs = data.labels().iter().zip(decided);
    pairs
        .filter_map(|pair| match (task, pair) {
            (Task::Segmentation(task), (Label::Mask(truth), Label::Mask(mask))) => Some(task.overlaps(truth, mask)),
            _ => None,
        })
        .collect()
}

/// Prints the figures on the test samples, one line each.
pub(crate) fn print(model: &dyn DifferentiableModel, data: &Dataset) -> Result<(), Error> {
    let task = &model.spec().task;
    let decided = decisions(model, data)?;
    if let Task::Segmentation(_) = task {
        let dice = Measure::MeanDice.of_decisions(task, data, &decided);
        let overlaps = overlaps(task, data, &decided);
        let (right, all) = overlaps.iter().flatten().fold((0, 0), |(b, t), class| (b + class.both, t + class.truth));
        println!(
            "test mean Dice {dice:.4} ({} samples), {:.4} of the positions right",
            data.len(),
            right as f64 / all as f64
        );
        for (class, name) in data.class_names().iter().enumerate() {
            let mean = |of: fn(&Overlap) -> Option<f64>| {
                let values: Vec<f64> = overlaps.iter().filter_map(|sample| of(&sample[class])).collect();
                values.iter().sum::<f64>() / values.len() as f64
            };
            println!("  class {name}: Dice {:.4}, IoU {:.4}", mean(Overlap::dice), mean(Overlap::iou));
        }
        return Ok(());
    }
    let accuracy = Measure::Accuracy.of_decisions(task, data, &decided);
    println!("test accuracy {accuracy:.4} ({} samples)", data.len());
    let errors: Option<Vec<f64>> =
        data.labels().iter().zip(&decided).map(|(truth, decision)| task.error(truth, decision)).collect();
    if let Some(errors) = errors {
        println!("test mean absolute error {:.4}", errors.iter().sum::<f64>() / errors.len() as f64);
    }
    if !data.is_multi_label() && !data.class_names().is_empty() {
        println!("test balanced accuracy {:.4}", Measure::BalancedAccuracy.of_decisions(task, data, &decided));
    }
    for ((hits, of), name) in sensitivities(data, &decided).into_iter().zip(data.class_names()) {
        match of {
            0 => println!("  {name}: no sample"),
            of => println!("  {name}: sensitivity {:.4} ({hits} of {of})", hits as f64 / of as f64),
        }
    }
    Ok(())
}
