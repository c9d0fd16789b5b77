//! A network of the zoo as the substitute of a model.

use nocebo_core::{Error, ModelSpec, Samples, Seed};
use nocebo_graph::train::{Labelled, Training, TrainingConfig};
use nocebo_graph::zoo::{self, Blueprint};
use nocebo_graph::{Device, GraphModel};

/// Trains a new network on what a model decided. The one of the last epoch is kept: there is nothing to choose by.
///
/// # Errors
///
/// When the architecture cannot take such samples, and whatever the training refuses.
pub(crate) fn train(
    architecture: &str,
    spec: &ModelSpec,
    data: Labelled<'_>,
    epochs: usize,
    learning_rate: f32,
    seed: Seed,
) -> Result<GraphModel, Error> {
    let (mean, standard_deviation) = moments(data.samples);
    let blueprint =
        Blueprint { spec, mean: &mean, standard_deviation: &standard_deviation, seed: seed.named("substitute") };
    let graph = zoo::build(architecture, &blueprint)?;
    let device = Device::default();
    let training = Training {
        config: &TrainingConfig { epochs, learning_rate, ..TrainingConfig::default() },
        spec,
        device: &device,
        seed: seed.named("substitute training"),
        freeze: None,
        perturb: None,
        score: &mut |_, epoch| Ok(epoch as f64),
        observe: &mut |_| {},
    };
    let trained = training.run(&graph, data)?;
    Ok(GraphModel::new(trained.graph, spec.clone(), &device)?)
}

/// Mean and standard deviation of each channel; a channel that never varies has 1.
fn moments(samples: &Samples) -> (Vec<f32>, Vec<f32>) {
    let channels = samples.shape()[0];
    let plane = samples.elements() / channels;
    let of = |channel: usize| {
        let values = || samples.rows().flat_map(move |row| &row[channel * plane..(channel + 1) * plane]);
        let count = (samples.len() * plane) as f64;
        let mean = values().map(|value| f64::from(*value)).sum::<f64>() / count;
        let variance = values().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
        (mean as f32, if variance > 0.0 { variance.sqrt() as f32 } else { 1.0 })
    };
    (0..channels).map(of).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_each_channel() {
        let samples = Samples::new(vec![1.0, 3.0, 7.0, 7.0, 5.0, 7.0, 7.0, 7.0], &[2, 2]).unwrap();
        let (mean, deviation) = moments(&samples);
        assert_eq!((mean, deviation), (vec![4.0, 7.0], vec![5.0_f32.sqrt(), 1.0]));
    }
}
