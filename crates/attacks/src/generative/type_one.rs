//! Type I: a great change that the model does not see. A sample is moved to another class of an attribute, and the model
//! is to keep its decision: a diseased image that stays "healthy" however large the lesion grows.
//!
//! ```text
//! supervised VAE   min  mean ‖D(z) − x‖² + γ·KL(q(z|x) ‖ N(0, I)) + ω·H(c(z), y),   z = μ(x) + σ(x)·N(0, 1)
//! search           from z = μ(x), by Adam:  min over z   H(c(z), y′) + k·max(0, κ − margin of f's own decision at D(z))
//! ```
//!
//! This cannot be an [`Attack`](nocebo_core::Attack). There success is that the model's decision changes within a small
//! ball; here it is that the decision stays while the truth changes, and the model cannot say what the truth is. So a
//! second model (the judge: another network that knows the attribute, or a reader) decides whether the change is real, and
//! [`TypeOneOutcome`] holds both answers. There is no epsilon, since the change is meant to be great; bounds and region of
//! the domain are kept.
//!
//! Source: Tang, Huang, Zhou, Feng & Liu, IEEE T-PAMI 2021, arXiv:1809.00594, sections 3 and 4. Survey: \[123\].
//!
//! Differs from the source: the judge is given from outside, besides the latent classifier c that steers; the paper's
//! self-adaptive weight is a constant k with a hinge, which is 0 while the decision is safe (our reading); the search
//! keeps the last point at which both hold. Squares are means over elements in half-ranges.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    DifferentiableModel, Domain, Error, Goal, GoalObjective, Label, Loss, Model, Norm, Oracle, Queries, Samples, Seed,
    Task,
};
use nocebo_graph::Network;

use super::atn::probabilities;
use super::generator::{batch, exclusive_classes};
use super::networks::{NetworkConfig, scaled, unscaled};
use crate::adam::Adam;
use crate::gaussian::gaussian;

/// Settings of [`TypeOne`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TypeOneConfig {
    /// Size of the latent space; 1 to 1024.
    pub latent: usize,
    /// Weight γ of the divergence from the prior; finite and at least 0.
    pub prior_weight: f32,
    /// Weight ω of the latent classifier; finite and at least 0.
    pub class_weight: f32,
    /// Steps of the search; at least 1.
    pub steps: usize,
    /// Learning rate of the search, where latent vectors have standard deviation about 1; finite and above 0.
    pub step_size: f32,
    /// Weight k of keeping the decision; finite and at least 0.
    pub keep_weight: f32,
    /// Margin κ of the logits at which the decision is safe; finite and at least 0.
    pub keep_margin: f32,
    /// The three networks and their training.
    pub network: NetworkConfig,
}

impl Default for TypeOneConfig {
    /// Values chosen here.
    fn default() -> Self {
        Self {
            latent: 16,
            prior_weight: 0.01,
            class_weight: 1.0,
            steps: 200,
            step_size: 0.05,
            keep_weight: 0.3,
            keep_margin: 1.0,
            network: NetworkConfig::default(),
        }
    }
}

/// The Type I attack before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "TypeOneConfig")]
pub struct TypeOne(TypeOneConfig);

impl TryFrom<TypeOneConfig> for TypeOne {
    type Error = Error;

    fn try_from(config: TypeOneConfig) -> Result<Self, Error> {
        if !(1..=1024).contains(&config.latent) {
            return Err(Error::invalid("latent", "1 to 1024", config.latent));
        }
        if config.steps == 0 {
            return Err(Error::invalid("steps", "at least 1", config.steps));
        }
        if !(config.step_size.is_finite() && config.step_size > 0.0) {
            return Err(Error::invalid("step_size", "finite and above 0", config.step_size));
        }
        for (field, value) in [
            ("prior_weight", config.prior_weight),
            ("class_weight", config.class_weight),
            ("keep_weight", config.keep_weight),
            ("keep_margin", config.keep_margin),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(field, "finite and at least 0", value));
            }
        }
        config.network.check()?;
        Ok(Self(config))
    }
}

impl TypeOne {
    /// Trains the supervised VAE on `samples` of `domain`, each with its class (of `classes`) of the attribute.
    ///
    /// # Errors
    ///
    /// When the samples do not fit the domain, there is not one class below `classes` for each, `classes` is below 2, the
    /// networks would be too great, or training diverges.
    pub fn learn(
        &self,
        domain: &Domain,
        samples: &Samples,
        attribute: &[usize],
        classes: usize,
        seed: Seed,
    ) -> Result<TypeOneAttack, Error> {
        let TypeOneConfig { latent, network, .. } = self.0;
        domain.check(samples)?;
        if samples.is_empty() || attribute.len() != samples.len() {
            return Err(Error::mismatch(
                "classes of the attribute",
                format!("{}, 1 at least", samples.len()),
                attribute.len(),
            ));
        }
        let task = Task::MultiClass { classes };
        if classes < 2 {
            return Err(Error::invalid("classes", "at least 2", classes));
        }
        attribute.iter().try_for_each(|&class| task.check_label(&Label::Class(class)))?;
        let (shape, real) = (samples.shape(), scaled(domain, samples));
        let mut attack = TypeOneAttack {
            config: self.0,
            encoder: network.classifier(shape, &[latent, latent], seed.named("encoder"))?,
            decoder: network.decoder(latent, shape, seed.named("decoder"))?,
            head: network.linear(latent, classes, seed.named("head"))?,
            domain: domain.clone(),
            task,
        };
        for step in 0..network.steps {
            let rows = batch(seed, real.len(), network.batch, step);
            let classes: Vec<usize> = rows.iter().map(|&row| attribute[row]).collect();
            attack.train(&real.select(&rows), &classes, seed.named("latent").stream(step as u64))?;
        }
        Ok(attack)
    }
}

/// A supervised VAE, to be searched.
pub struct TypeOneAttack {
    config: TypeOneConfig,
    encoder: Network,
    decoder: Network,
    head: Network,
    domain: Domain,
    task: Task,
}

/// What a Type I search found.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeOneOutcome {
    /// The changed samples, inside the bounds and unchanged outside the region of the domain.
    pub changed_inputs: Samples,
    /// Whether the model decides as on the clean sample.
    pub decision_kept: Vec<bool>,
    /// Whether the judge decides for the wanted class, and did not on the clean sample.
    pub attribute_changed: Vec<bool>,
    /// L2 length of the change, as a fraction of that between the bounds.
    pub change: Vec<f64>,
    /// Passes of the model spent on each sample; the judge's are not counted.
    pub queries: Vec<Queries>,
}

impl TypeOneOutcome {
    /// Whether the change is real and the model did not see it.
    pub fn success(&self) -> Vec<bool> {
        self.decision_kept.iter().zip(&self.attribute_changed).map(|(kept, changed)| *kept && *changed).collect()
    }
}

impl TypeOneAttack {
    /// One step of all three networks.
    fn train(&mut self, x: &Samples, classes: &[usize], seed: Seed) -> Result<(), Error> {
        let config = &self.config;
        let share = 1.0 / x.len() as f32;
        let coded = self.encoder.forward(&[x])?;
        let (mean, log_variance) = (coded.outputs()[0].clone(), coded.outputs()[1].clone());
        let mut draws = seed.for_sample(0);
        let noise: Vec<f32> = mean.values().iter().map(|_| gaussian(&mut draws) as f32).collect();
        let spread: Vec<f32> =
            log_variance.values().iter().zip(&noise).map(|(log, noise)| (0.5 * log).exp() * noise).collect();
        let mut z = mean.clone();
        z.values_mut().iter_mut().zip(&spread).for_each(|(z, spread)| *z += spread);

        let decoded = self.decoder.forward(&[&z])?;
        let errors: Vec<f32> = decoded.outputs()[0]
            .values()
            .iter()
            .zip(x.values())
            .map(|(made, clean)| 2.0 * share * (made - clean) / x.elements() as f32)
            .collect();
        let by_decoder = decoded.pull_back(&[&errors])?;
        let judged = self.head.forward(&[&z])?;
        let surplus = surplus(&self.task, &judged.outputs()[0], classes, config.class_weight * share);
        let by_head = judged.pull_back(&[&surplus])?;

        let mut by_mean = Vec::with_capacity(noise.len());
        let mut by_log = Vec::with_capacity(noise.len());
        let slopes = by_decoder.inputs[0].values().iter().zip(by_head.inputs[0].values());
        let coded_at = mean.values().iter().zip(log_variance.values()).zip(&spread);
        for ((decoder, head), ((mean, log), spread)) in slopes.zip(coded_at) {
            let slope = decoder + head;
            // KL = ½ Σ (σ² + μ² − 1 − log σ²)
            by_mean.push(slope + share * config.prior_weight * mean);
            by_log.push(0.5 * slope * spread + share * config.prior_weight * 0.5 * (log.exp() - 1.0));
        }
        self.encoder.step(&coded.pull_back(&[&by_mean, &by_log])?);
        self.decoder.step(&by_decoder);
        self.head.step(&by_head);
        Ok(())
    }

    fn decoded(&self, z: &Samples, clean: &Samples) -> Result<(nocebo_graph::network::Pass, Samples), Error> {
        let pass = self.decoder.forward(&[z])?;
        let mut points = clean.clone();
        for (row, values) in pass.outputs()[0].rows().enumerate() {
            points.row_mut(row).copy_from_slice(&unscaled(&self.domain, values));
            Norm::Linf.project(f32::INFINITY, &self.domain, clean.row(row), points.row_mut(row));
        }
        Ok((pass, points))
    }

    /// Moves each sample to its class of `targets` in the attribute, such that `model` keeps its decision; `judge` (of
    /// the attribute's classes) says whether the attribute has changed.
    ///
    /// Costs `steps` gradient queries and three queries a sample of the model. The result of a sample depends on that
    /// sample alone.
    ///
    /// # Errors
    ///
    /// When samples, targets or the judge's classes do not fit, and whatever the models return.
    pub fn run(
        &self,
        model: &dyn DifferentiableModel,
        judge: &dyn Model,
        inputs: &Samples,
        targets: &[usize],
    ) -> Result<TypeOneOutcome, Error> {
        self.domain.check(inputs)?;
        if targets.len() != inputs.len() {
            return Err(Error::mismatch("number of targets", inputs.len(), targets.len()));
        }
        let classes = (self.task.classes(), exclusive_classes("a judge", &judge.spec().task)?);
        if classes.0 != classes.1 {
            return Err(Error::mismatch("classes of the judge", classes.0, classes.1));
        }
        targets.iter().try_for_each(|&target| self.task.check_label(&Label::Class(target)))?;
        let oracle = Oracle::new(model, None);
        let (task, judging) = (&model.spec().task, &judge.spec().task);
        let decided = |outputs: nocebo_core::Outputs, task: &Task| -> Vec<Label> {
            outputs.rows().map(|logits| task.decide(logits)).collect()
        };
        let own = decided(oracle.outputs(inputs)?, task);
        let before = decided(judge.outputs(inputs)?, judging);
        let keep = Goal::Targeted { labels: own.clone(), targets: own.clone() };
        let safe = GoalObjective::new(&keep, task, Loss::Margin)?;
        let mut z = self.encoder.forward(&[&scaled(&self.domain, inputs)])?.outputs()[0].clone();
        let mut adams: Vec<Adam> = targets.iter().map(|_| Adam::new(self.config.latent)).collect();
        let mut best = inputs.clone();
        let mut found = vec![false; inputs.len()];
        for step in 0..=self.config.steps {
            let (pass, points) = self.decoded(&z, inputs)?;
            let (labels, mut slopes, margins) = if step < self.config.steps {
                let gradient = oracle.gradient(&points, &safe)?;
                (decided(gradient.outputs, task), gradient.inputs, gradient.values)
            } else {
                (decided(oracle.outputs(&points)?, task), points.clone(), Vec::new())
            };
            let after = decided(judge.outputs(&points)?, judging);
            for row in 0..inputs.len() {
                let changed = is_changed(&before[row], &after[row], targets[row]);
                let both = changed && labels[row] == own[row];
                if both || !found[row] {
                    best.copy_row(row, &points, row);
                }
                found[row] |= both;
            }
            if step == self.config.steps {
                break;
            }
            for (slopes, margin) in slopes.rows_mut().zip(&margins) {
                for (element, slope) in slopes.iter_mut().enumerate() {
                    let half_range = 0.5 * (self.domain.upper()[element] - self.domain.lower()[element]);
                    let steers = *margin < self.config.keep_margin && self.domain.is_mutable(element);
                    *slope = if steers { -self.config.keep_weight * half_range * *slope } else { 0.0 };
                }
            }
            let by_model = pass.pull_back(&[slopes.values()])?.inputs.swap_remove(0);
            let judged = self.head.forward(&[&z])?;
            let surplus = surplus(&self.task, &judged.outputs()[0], targets, 1.0);
            let by_head = judged.pull_back(&[&surplus])?.inputs.swap_remove(0);
            for (row, adam) in adams.iter_mut().enumerate() {
                let parts = by_model.row(row).iter().zip(by_head.row(row));
                let slopes: Vec<f64> = parts.map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
                for (z, part) in z.row_mut(row).iter_mut().zip(adam.direction(&slopes)) {
                    *z -= self.config.step_size * part as f32;
                }
            }
        }
        let labels = decided(oracle.outputs(&best)?, task);
        let after = decided(judge.outputs(&best)?, judging);
        let whole = Norm::L2.distance(self.domain.lower(), self.domain.upper());
        Ok(TypeOneOutcome {
            decision_kept: labels.iter().zip(&own).map(|(now, own)| now == own).collect(),
            attribute_changed: (0..inputs.len())
                .map(|row| is_changed(&before[row], &after[row], targets[row]))
                .collect(),
            change: inputs.rows().zip(best.rows()).map(|(x, y)| Norm::L2.distance(x, y) / whole).collect(),
            queries: inputs.indices().iter().map(|&sample| oracle.queries(sample)).collect(),
            changed_inputs: best,
        })
    }
}

/// Whether the judge has come to the wanted class.
fn is_changed(before: &Label, after: &Label, target: usize) -> bool {
    before != after && *after == Label::Class(target)
}

/// Probability less truth of each logit, times `weight`.
fn surplus(task: &Task, logits: &Samples, classes: &[usize], weight: f32) -> Vec<f32> {
    let rows = logits.rows().zip(classes).flat_map(|(logits, &wanted)| {
        let parts = probabilities(task, logits).into_iter().enumerate();
        parts
            .map(move |(class, part)| weight * (part as f32 - f32::from(u8::from(class == wanted))))
            .collect::<Vec<_>>()
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::super::networks;
    use super::*;
    use nocebo_testkit::models::Linear;
    use rand::RngExt;

    fn plane() -> Domain {
        Domain::grey_levels(&[2], 255.0).unwrap()
    }

    /// Four clusters; the attribute is whether the second value is great.
    fn clusters(count: u64) -> (Samples, Vec<usize>) {
        let values = (0..count).flat_map(|at| {
            let mut generator = Seed(8).for_sample(at);
            let mut near = |centre: f32| centre + generator.random_range(-20.0_f32..20.0);
            [near(if at % 2 == 0 { 70.0 } else { 185.0 }), near(if at % 4 < 2 { 70.0 } else { 185.0 })]
        });
        let samples = Samples::new(values.collect(), &[2]).unwrap();
        let classes = samples.rows().map(|row| usize::from(row[1] > 127.5)).collect();
        (samples, classes)
    }

    fn axis(axis: usize) -> Linear {
        let weights = (0..2).map(|at| if at == axis { 0.05 } else { 0.0 }).collect();
        Linear::new(plane(), Task::Binary { threshold: 0.0 }, vec![weights], vec![-0.05 * 127.5])
    }

    fn type_one(text: &str) -> TypeOne {
        let config: TypeOneConfig = toml::from_str(text).unwrap();
        let network =
            NetworkConfig { steps: 200, hidden: 12, batch: 16, learning_rate: 0.01, ..networks::testing::tiny() };
        TypeOne::try_from(TypeOneConfig { latent: 2, steps: 60, network, ..config }).unwrap()
    }

    fn learned(text: &str, domain: &Domain) -> (TypeOneAttack, Samples, Vec<usize>) {
        let (samples, classes) = clusters(80);
        let attack = type_one(text).learn(domain, &samples, &classes, 2, Seed(1)).unwrap();
        let inputs = samples.select(&(0..16).collect::<Vec<_>>());
        let targets = classes[..16].iter().map(|class| 1 - class).collect();
        (attack, inputs, targets)
    }

    #[test]
    fn the_attribute_changes_and_the_decision_stays() {
        // The model looks at the first value only, and the judge at the second.
        let (attack, inputs, targets) = learned("step_size = 0.1", &plane());
        let outcome = attack.run(&axis(0), &axis(1), &inputs, &targets).unwrap();
        let done = outcome.success().iter().filter(|done| **done).count();
        assert!(done >= 14, "{done} {:?} {:?}", outcome.decision_kept, outcome.attribute_changed);
        // Half of all that is between the bounds of one axis, or so.
        assert!(outcome.change.iter().filter(|change| **change > 0.15).count() >= 14, "{:?}", outcome.change);
        assert!(outcome.queries.iter().all(|spent| spent.forward == 63 && spent.backward == 60));
        for (row, point) in outcome.changed_inputs.rows().enumerate() {
            assert_eq!(outcome.decision_kept[row], (point[0] > 127.5) == (inputs.row(row)[0] > 127.5));
            assert_eq!(outcome.attribute_changed[row], (point[1] > 127.5) == (targets[row] == 1));
        }
    }

    #[test]
    fn a_model_that_sees_the_attribute_cannot_be_kept() {
        let (attack, inputs, targets) = learned("step_size = 0.1", &plane());
        let outcome = attack.run(&axis(1), &axis(1), &inputs, &targets).unwrap();
        assert!(!outcome.success().contains(&true));
        // Where keeping weighs nothing the attribute changes all the same, and the model sees it.
        let (free, ..) = learned("step_size = 0.1\nkeep_weight = 0.0", &plane());
        let outcome = free.run(&axis(1), &axis(1), &inputs, &targets).unwrap();
        let changed = outcome.attribute_changed.iter().filter(|changed| **changed).count();
        assert!(changed >= 14 && outcome.decision_kept.iter().filter(|kept| **kept).count() <= 2);
    }

    #[test]
    fn what_the_model_would_see_is_made_up_for_elsewhere() {
        // The model looks at both values; the judge asks for a second value of 165, where the first must have fallen.
        let line = |weights: [f32; 2], at: [f32; 2]| {
            let bias = -weights.iter().zip(at).map(|(weight, at)| weight * at).sum::<f32>();
            Linear::new(plane(), Task::Binary { threshold: 0.0 }, vec![weights.to_vec()], vec![bias])
        };
        let (model, judge) = (line([0.03, 0.05], [127.5; 2]), line([0.0, 0.05], [0.0, 165.0]));
        let done = |text: &str| {
            let attack = learned(text, &plane()).0;
            let (samples, _) = clusters(80);
            let low = samples.select(&(0..80).step_by(4).collect::<Vec<_>>());
            let outcome = attack.run(&model, &judge, &low, &[1; 20]).unwrap();
            outcome.success().iter().filter(|done| **done).count()
        };
        let (kept, free) = (done("step_size = 0.1"), done("step_size = 0.1\nkeep_weight = 0.0"));
        assert!(kept >= free + 6, "{kept} with the term, {free} without");
    }

    #[test]
    fn a_sample_does_not_depend_on_its_batch_and_the_region_stays() {
        let region = plane().with_region(vec![false, true]).unwrap();
        let (attack, inputs, targets) = learned("step_size = 0.1", &region);
        let whole = attack.run(&axis(0), &axis(1), &inputs, &targets).unwrap();
        for (clean, point) in inputs.rows().zip(whole.changed_inputs.rows()) {
            assert!(clean[0] == point[0] && (0.0..=255.0).contains(&point[1]));
        }
        let rows = [9, 2, 5];
        let wanted: Vec<usize> = rows.iter().map(|&row| targets[row]).collect();
        let part = attack.run(&axis(0), &axis(1), &inputs.select(&rows), &wanted).unwrap();
        assert_eq!(part.changed_inputs, whole.changed_inputs.select(&rows));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (samples, classes) = clusters(8);
        let learner = TypeOne(TypeOneConfig { network: networks::testing::tiny(), ..TypeOneConfig::default() });
        let learn = |classes: &[usize], count| learner.learn(&plane(), &samples, classes, count, Seed(1));
        assert!(learn(&classes[..7], 2).is_err());
        assert!(learn(&classes, 1).is_err());
        assert!(learn(&[5; 8], 2).is_err());
        let attack = learn(&classes, 2).unwrap();
        assert!(attack.run(&axis(0), &axis(1), &samples, &[0; 3]).is_err());
        assert!(attack.run(&axis(0), &axis(1), &samples, &[2; 8]).is_err());
        for text in [
            "gamma = 1.0",
            "latent = 0",
            "steps = 0",
            "step_size = nan",
            "prior_weight = -1.0",
            "class_weight = inf",
            "keep_weight = -0.1",
            "keep_margin = nan",
            "network = { batch = 0 }",
        ] {
            assert!(toml::from_str::<TypeOne>(text).is_err(), "{text}");
        }
    }
}
