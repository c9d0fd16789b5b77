//! The print-and-scan channel ([`Transformations::print_and_scan`]), and how many adversarial examples it destroys.
//!
//! ```text
//! printed and scanned = JPEG(noise(blur(gamma(perspective(rotation(x))))))
//! d = #(clean right, adversarial wrong, transformed adversarial right) / #(clean right, adversarial wrong)
//! ```
//!
//! Source: Kurakin, Goodfellow & Bengio, arXiv:1607.02533, section 3 (destruction rate). Survey: \[64\].
//!
//! Differs from the source: the photograph of a print is simulated. Right and wrong mean that the goal is not reached, or is.

use nocebo_core::{Error, Goal, Model, Samples, Seed};

use crate::transformation::{Transformations, transformed};

/// For each sample the share of `draws` transformations under which it reaches the goal.
///
/// Costs `draws` queries a sample.
///
/// # Errors
///
/// When the goal or a transformation does not fit the model, there is no draw, or the model fails.
pub fn success_under(
    model: &dyn Model,
    points: &Samples,
    goal: &Goal,
    transformations: &Transformations,
    draws: usize,
    seed: Seed,
) -> Result<Vec<f64>, Error> {
    let (domain, task) = (&model.spec().domain, &model.spec().task);
    if draws == 0 {
        return Err(Error::invalid("draws", "at least 1", draws));
    }
    transformations.check(domain)?;
    goal.check(task, points.len())?;
    let mut counts = vec![0_usize; points.len()];
    for draw in 0..draws as u64 {
        let through = transformations.draw_each(domain, points, seed.stream(draw));
        let outputs = model.outputs(&transformed(points, &through))?;
        for (count, reached) in counts.iter_mut().zip(goal.reached(task, &outputs)) {
            *count += usize::from(reached);
        }
    }
    Ok(counts.into_iter().map(|count| count as f64 / draws as f64).collect())
}

/// The share of adversarial examples that transformations undo, over `draws` each; `None` when there is none.
///
/// Costs `draws + 2` queries a sample.
///
/// # Errors
///
/// As [`success_under`].
pub fn destruction_rate(
    model: &dyn Model,
    clean: &Samples,
    perturbed: &Samples,
    goal: &Goal,
    transformations: &Transformations,
    draws: usize,
    seed: Seed,
) -> Result<Option<f64>, Error> {
    let task = &model.spec().task;
    if clean.len() != perturbed.len() {
        return Err(Error::mismatch("perturbed samples", clean.len(), perturbed.len()));
    }
    goal.check(task, clean.len())?;
    let before = goal.reached(task, &model.outputs(clean)?);
    let after = goal.reached(task, &model.outputs(perturbed)?);
    let rows: Vec<usize> = (0..clean.len()).filter(|&row| !before[row] && after[row]).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let surviving = success_under(model, &perturbed.select(&rows), &goal.select(&rows), transformations, draws, seed)?;
    Ok(Some(1.0 - surviving.iter().sum::<f64>() / rows.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transformation::RandomTransformation;
    use nocebo_core::{Domain, Label, Task};
    use nocebo_testkit::models::Linear;

    /// Class 1 where the mean is above 100.
    fn bright() -> Linear {
        let domain = Domain::grey_levels(&[1, 4, 4], 255.0).unwrap();
        Linear::new(domain, Task::Binary { threshold: 0.0 }, vec![vec![1.0 / 16.0; 16]], vec![-100.0])
    }

    #[test]
    fn the_channel_changes_an_image_but_keeps_it() {
        let channel = Transformations::print_and_scan();
        let domain = Domain::grey_levels(&[1, 16, 16], 255.0).unwrap();
        let image: Vec<f32> = (0..256).map(|at| if (at / 16 + at % 16) % 8 < 4 { 60.0 } else { 180.0 }).collect();
        let samples = Samples::new(image, &[1, 16, 16]).unwrap();
        let seen = transformed(&samples, &channel.draw_each(&domain, &samples, Seed(1)));
        let away = nocebo_core::Norm::L1.distance(samples.row(0), seen.row(0)) / 256.0;
        assert!((2.0..45.0).contains(&away), "{away}");
    }

    #[test]
    fn counts_what_a_darker_copy_undoes() {
        // Clean 90, 90, 120, 90; perturbed 104, 130, 130, 95. The third was wrong already, the fourth still is right.
        let rows = |means: [f32; 4]| {
            Samples::new(means.iter().flat_map(|mean| vec![*mean; 16]).collect(), &[1, 4, 4]).unwrap()
        };
        let (clean, perturbed) = (rows([90.0, 90.0, 120.0, 90.0]), rows([104.0, 130.0, 130.0, 95.0]));
        let goal = Goal::Untargeted { labels: vec![Label::Class(0); 4] };
        let darker = |fraction: f64| -> Transformations {
            vec![RandomTransformation::Gamma { exponent: [fraction, fraction] }].try_into().unwrap()
        };
        let rate = |by| destruction_rate(&bright(), &clean, &perturbed, &goal, &darker(by), 3, Seed(1)).unwrap();
        // 255·(104/255)^1.1 = 95, 255·(130/255)^1.1 = 121.5.
        assert_eq!(rate(1.1), Some(0.5));
        assert_eq!(rate(1.0), Some(0.0));
        let none = destruction_rate(&bright(), &clean, &clean, &goal, &darker(1.1), 3, Seed(1)).unwrap();
        assert_eq!(none, None);
        let shares = success_under(&bright(), &perturbed, &goal, &darker(1.1), 4, Seed(1)).unwrap();
        assert_eq!(shares, [0.0, 1.0, 1.0, 0.0]);
        assert!(success_under(&bright(), &perturbed, &goal, &darker(1.1), 0, Seed(1)).is_err());
    }
}
