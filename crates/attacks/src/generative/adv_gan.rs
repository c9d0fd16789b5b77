//! `AdvGAN`: a generator against the model and against a discriminator that tells its points from clean samples, L2 and
//! Linf; of a model that only answers, through a distilled one.
//!
//! ```text
//! min over G  max over D   L_adv + α·L_GAN + β·L_hinge
//! L_adv = max(max_{j≠t} z_j − z_t, −κ) at x′ = Π(x + G(x))      (without a target: max(z_y − max_{j≠y} z_j, −κ))
//! L_GAN: D learns (D(x) − 1)² + D(x′)²,  G learns (D(x′) − 1)²      L_hinge = max(0, ‖x′ − x‖₂/L − c)
//! L the greatest L2 length of a change that the threat model allows
//!
//! black box, static    first F learns H(F(x), f(x)) on the set, then G is learned against F
//! black box, dynamic   so for the first round, then in turn  F learns H(F(x), f(x)) + H(F(x′), f(x′)),  G goes on
//! ```
//!
//! Source: Xiao et al., IJCAI 2018, arXiv:1801.02610, section 3. Survey: \[131\].
//!
//! Differs from the source: the threat model bounds the change beside the hinge, whose bound c is a fraction of L; the
//! GAN term is that of least squares, as in the paper's experiments; networks are small ones of this crate. H is
//! cross-entropy on probabilities, so the black box must give scores.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, DifferentiableModel, Error, GoalKind, GoalObjective, Gradient, Knowledge, Loss,
    Model, ModelSpec, Norm, Objective, Oracle, Outputs, Samples, Seed, Task, ThreatModel,
};
use nocebo_graph::Network;

use super::atn::probabilities;
use super::change::Form;
use super::generator::{Generator, PlainGenerator, batch, negated, one_aim};
use super::networks::{NetworkConfig, scaled};
use crate::fit::FitAttack;

/// Whether the model's own gradients are used, or those of a distilled one.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distillation {
    /// The model's own.
    #[default]
    None,
    /// Those of a network distilled once from its answers.
    Static,
    /// Those of a network that is distilled again on the points of each round.
    Dynamic,
}

/// Settings of [`AdvGan`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdvGanConfig {
    /// Margin κ beyond which a sample no longer steers; finite and at least 0.
    pub confidence: f32,
    /// Weight α of the discriminator; finite and at least 0.
    pub discriminator_weight: f32,
    /// Weight β of the hinge; finite and at least 0.
    pub hinge_weight: f32,
    /// Bound c of the hinge as a fraction of the greatest length; 0 to 1.
    pub hinge_bound: f32,
    /// Whose gradients are used.
    pub distillation: Distillation,
    /// Rounds of dynamic distillation, each with all steps of the generator; at least 1.
    pub rounds: usize,
    /// Steps of distillation in each round; at least 1.
    pub distillation_steps: usize,
    /// The networks and their training.
    pub network: NetworkConfig,
}

impl Default for AdvGanConfig {
    /// κ = 0 is the paper's, which does not give α, β and c; these are ours.
    fn default() -> Self {
        Self {
            confidence: 0.0,
            discriminator_weight: 1.0,
            hinge_weight: 1.0,
            hinge_bound: 0.9,
            distillation: Distillation::None,
            rounds: 3,
            distillation_steps: 300,
            network: NetworkConfig { momentum: 0.5, ..NetworkConfig::default() },
        }
    }
}

/// `AdvGAN` before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "AdvGanConfig")]
pub struct AdvGan(AdvGanConfig);

impl TryFrom<AdvGanConfig> for AdvGan {
    type Error = Error;

    fn try_from(config: AdvGanConfig) -> Result<Self, Error> {
        for (field, value) in [
            ("confidence", config.confidence),
            ("discriminator_weight", config.discriminator_weight),
            ("hinge_weight", config.hinge_weight),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(field, "finite and at least 0", value));
            }
        }
        if !(0.0..=1.0).contains(&config.hinge_bound) {
            return Err(Error::invalid("hinge_bound", "0 to 1", config.hinge_bound));
        }
        for (field, value) in [("rounds", config.rounds), ("distillation_steps", config.distillation_steps)] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        config.network.check()?;
        Ok(Self(config))
    }
}

impl AdvGan {
    /// What this attack is; of a black box it needs scores only.
    pub const INFO: AttackInfo = AttackInfo {
        name: "advgan",
        title: "AdvGAN",
        source: "Xiao et al. 2018, arXiv:1801.02610",
        family: "generative",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 query; learning: steps · batch gradients in all",
        minimum_norm: false,
    };

    /// The generator, and the discriminator that it was learned against.
    fn pair(&self, problem: &AttackProblem<'_>) -> Result<(Generator, Network), Error> {
        let config = &self.0;
        let (spec, shape) = (problem.oracle.spec(), problem.inputs.shape());
        let mut generator = Generator::new(problem, &config.network, Form::Perturbation, 0)?;
        let mut discriminator = config.network.classifier(shape, &[1], problem.seed.named("discriminator"))?;
        if config.distillation == Distillation::None {
            self.train(problem, problem.oracle, 0, &mut generator, &mut discriminator)?;
            return Ok((generator, discriminator));
        }
        if let Task::Segmentation(_) = spec.task {
            return Err(Error::unsupported(
                "distilling a segmentation network",
                "its answers are one class a position; use the gradients of the model",
            ));
        }
        let network = config.network.classifier(shape, &[spec.task.outputs()], problem.seed.named("distilled"))?;
        let mut distilled = Distilled { network, spec: spec.clone() };
        let said = problem.oracle.outputs(problem.inputs)?.as_samples().clone();
        let rounds = if config.distillation == Distillation::Dynamic { config.rounds } else { 1 };
        for round in 0..rounds {
            let (mut samples, mut answers) = (problem.inputs.clone(), said.clone());
            if round > 0 {
                let points = generator.make(problem.inputs, &[])?.points;
                answers = answers.joined(problem.oracle.outputs(&points)?.as_samples())?;
                samples = samples.joined(&points)?;
            }
            distilled.learn(&samples, &answers, config, problem.seed.named("distillation").stream(round as u64))?;
            self.train(problem, &Oracle::new(&distilled, None), round, &mut generator, &mut discriminator)?;
        }
        Ok((generator, discriminator))
    }

    /// All steps of the generator and the discriminator against `model`.
    fn train(
        &self,
        problem: &AttackProblem<'_>,
        model: &Oracle<'_>,
        round: usize,
        generator: &mut Generator,
        discriminator: &mut Network,
    ) -> Result<(), Error> {
        let config = &self.0;
        let domain = problem.threat.domain();
        let longest = longest(problem.threat);
        let seed = problem.seed.stream(round as u64);
        for step in 0..config.network.steps {
            let rows = batch(seed, problem.inputs.len(), config.network.batch, step);
            let clean = problem.inputs.select(&rows);
            let made = generator.make(&clean, &[])?;
            let fake = scaled(domain, &made.points);

            let pass = discriminator.forward(&[&scaled(domain, &clean).joined(&fake)?])?;
            let cotangent: Vec<f32> = pass.outputs()[0]
                .values()
                .iter()
                .enumerate()
                .map(|(row, said)| (said - f32::from(u8::from(row < rows.len()))) / rows.len() as f32)
                .collect();
            discriminator.step(&pass.pull_back(&[&cotangent])?);

            let goal = problem.goal.select(&rows);
            let gradient =
                model.gradient(&made.points, &GoalObjective::new(&goal, &model.spec().task, Loss::Margin)?)?;
            let mut slopes = negated(gradient.inputs);
            for (slopes, value) in slopes.rows_mut().zip(&gradient.values) {
                if *value > config.confidence {
                    slopes.fill(0.0);
                }
            }
            let pass = discriminator.forward(&[&fake])?;
            let cotangent: Vec<f32> =
                pass.outputs()[0].values().iter().map(|said| config.discriminator_weight * (said - 1.0)).collect();
            let suspicion = pass.pull_back(&[&cotangent])?.inputs.swap_remove(0);
            for (row, slopes) in slopes.rows_mut().enumerate() {
                let length = Norm::L2.distance(clean.row(row), made.points.row(row)) as f32;
                let hinge = if length > config.hinge_bound * longest { config.hinge_weight } else { 0.0 };
                for (element, slope) in slopes.iter_mut().enumerate() {
                    let change = made.points.row(row)[element] - clean.row(row)[element];
                    *slope += suspicion.row(row)[element] * 2.0 / (domain.upper()[element] - domain.lower()[element]);
                    *slope += hinge * change / (length * longest).max(f32::MIN_POSITIVE);
                }
            }
            generator.learn(made, &slopes)?;
        }
        Ok(())
    }
}

/// The greatest L2 length of an allowed change.
fn longest(threat: &ThreatModel) -> f32 {
    let domain = threat.domain();
    let ranges = domain.lower().iter().zip(domain.upper()).map(|(low, high)| high - low);
    let whole = |range: f32| if threat.norm() == Norm::Linf { range.min(threat.epsilon()) } else { range };
    let corner = ranges.map(|range| whole(range).powi(2)).sum::<f32>().sqrt();
    if threat.norm() == Norm::L2 { corner.min(threat.epsilon()) } else { corner }
}

impl FitAttack for AdvGan {
    fn info(&self) -> AttackInfo {
        let knowledge =
            if self.0.distillation == Distillation::None { Knowledge::Gradients } else { Knowledge::Scores };
        AttackInfo { knowledge, ..Self::INFO }
    }

    /// Costs one query and one gradient query for each of `steps · batch` samples; of a black box one query a sample, and
    /// one more in each dynamic round after the first.
    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        let target = one_aim("advgan", problem)?;
        let (generator, _) = self.pair(problem)?;
        Ok(Box::new(PlainGenerator { info: self.info(), generator, target }))
    }
}

/// A network that has learned the answers of a black box.
struct Distilled {
    network: Network,
    spec: ModelSpec,
}

impl Distilled {
    /// Learns the probabilities of `answers` (logits, one row a sample).
    fn learn(&mut self, samples: &Samples, answers: &Samples, config: &AdvGanConfig, seed: Seed) -> Result<(), Error> {
        let samples = scaled(&self.spec.domain, samples);
        let task = &self.spec.task;
        for step in 0..config.distillation_steps {
            let rows = batch(seed, samples.len(), config.network.batch, step);
            let pass = self.network.forward(&[&samples.select(&rows)])?;
            let mut cotangent = Vec::with_capacity(pass.outputs()[0].values().len());
            for (have, &row) in pass.outputs()[0].rows().zip(&rows) {
                let mut surplus = difference(task, have, answers.row(row));
                if let Task::Binary { .. } = task {
                    surplus.remove(0);
                }
                cotangent.extend(surplus.iter().map(|part| part / rows.len() as f32));
            }
            self.network.step(&pass.pull_back(&[&cotangent])?);
        }
        Ok(())
    }
}

/// Probability had less probability wanted: the derivative of the cross-entropy by the logits.
fn difference(task: &Task, have: &[f32], wanted: &[f32]) -> Vec<f32> {
    let parts = probabilities(task, have).into_iter().zip(probabilities(task, wanted));
    parts.map(|(have, wanted)| (have - wanted) as f32).collect()
}

impl Model for Distilled {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        let pass = self.network.forward(&[&scaled(&self.spec.domain, inputs)])?;
        Ok(pass.outputs()[0].clone().into())
    }
}

impl DifferentiableModel for Distilled {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let domain = &self.spec.domain;
        let pass = self.network.forward(&[&scaled(domain, inputs)])?;
        let outputs = pass.outputs()[0].clone();
        let mut cotangent = outputs.clone();
        let mut values = Vec::with_capacity(inputs.len());
        for (row, (logits, slopes)) in outputs.rows().zip(cotangent.rows_mut()).enumerate() {
            values.push(objective.evaluate(row, logits, slopes)?);
        }
        let mut slopes = pass.pull_back(&[cotangent.values()])?.inputs.swap_remove(0);
        for row in slopes.rows_mut() {
            for (element, slope) in row.iter_mut().enumerate() {
                *slope *= 2.0 / (domain.upper()[element] - domain.lower()[element]);
            }
        }
        Ok(Gradient { outputs: outputs.into(), values, inputs: slopes })
    }
}

#[cfg(test)]
mod tests {
    use super::super::generator::testing;
    use super::super::networks;
    use super::*;
    use nocebo_core::{BlackBox, Goal, Label};
    use nocebo_testkit::suite;
    use rand::RngExt;

    fn config() -> AdvGanConfig {
        let network = NetworkConfig { steps: 120, momentum: 0.5, ..networks::testing::tiny() };
        AdvGanConfig { hinge_bound: 1.0, discriminator_weight: 0.1, network, ..AdvGanConfig::default() }
    }

    fn advgan(config: AdvGanConfig) -> AdvGan {
        AdvGan::try_from(config).unwrap()
    }

    #[test]
    fn finds_the_best_direction_on_a_linear_model() {
        // Without an end to the margin the whole budget is used.
        let config = AdvGanConfig { confidence: 1e6, ..config() };
        for norm in [Norm::Linf, Norm::L2] {
            testing::beats_noise(&advgan(config), norm, 1.2, 0.75);
        }
    }

    #[test]
    fn the_hinge_keeps_the_change_small() {
        let change = |config: AdvGanConfig| testing::mean_change(&advgan(config));
        let free = change(AdvGanConfig { confidence: 1e6, ..config() });
        let hinged = AdvGanConfig { confidence: 1e6, hinge_bound: 0.2, hinge_weight: 1e6, ..config() };
        assert!(change(hinged) < 0.5 * free);
    }

    #[test]
    fn the_discriminator_tells_points_from_samples_until_it_weighs() {
        let (model, samples) = (suite::linear_binary(), random(40, 200.0));
        let threat = ThreatModel::new(Norm::Linf, 300.0, suite::ct_domain()).unwrap();
        let (oracle, goal) = (Oracle::new(&model, None), Goal::FalsePositive { finding: 0 });
        let problem = AttackProblem { oracle: &oracle, inputs: &samples, goal: &goal, threat: &threat, seed: Seed(1) };
        let told_apart = |discriminator_weight: f32| {
            let (generator, discriminator) =
                advgan(AdvGanConfig { confidence: 1e6, discriminator_weight, ..config() }).pair(&problem).unwrap();
            let mean = |samples: &Samples| {
                let said = discriminator.forward(&[&scaled(threat.domain(), samples)]).unwrap().outputs()[0].clone();
                said.values().iter().sum::<f32>() / samples.len() as f32
            };
            mean(&samples) - mean(&generator.make(&samples, &[]).unwrap().points)
        };
        let (free, weighed) = (told_apart(0.0), told_apart(1e5));
        assert!(free > 0.5 && weighed < 0.5 * free, "{free} {weighed}");
    }

    fn random(count: u64, reach: f32) -> Samples {
        let draw = |row| {
            let mut generator = Seed(6).for_sample(row);
            (0..12).map(move |_| generator.random_range(-reach..reach))
        };
        Samples::new((0..count).flat_map(draw).collect(), &[1, 3, 4]).unwrap()
    }

    /// How many of the toy samples with a finding lose it to a generator that was learned on answers alone, and how many
    /// there are.
    fn hidden_from_black_box(distillation: Distillation) -> (usize, usize) {
        let (inner, samples) = (suite::linear_binary(), suite::ct_samples());
        let rows: Vec<usize> = (0..8).filter(|&row| inner.logits(samples.row(row))[0] > 0.0).collect();
        let samples = samples.select(&rows);
        let set = random(200, 1000.0);
        let goal = Goal::FalsePositive { finding: 0 };
        let most = samples.rows().map(|row| inner.least_change(Norm::Linf, row)).fold(0.0, f64::max);
        let threat = ThreatModel::new(Norm::Linf, 1.5 * most as f32, suite::ct_domain()).unwrap();
        let network = NetworkConfig { batch: 20, ..config().network };
        let config = AdvGanConfig { distillation, rounds: 2, confidence: 1e6, network, ..config() };
        let model = BlackBox(inner);
        let fitted = advgan(config).fit(&model, &set, &goal, &threat, Seed(1)).unwrap();
        assert_eq!(fitted.info().knowledge, Knowledge::Scores);
        let outcome = fitted.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.queries.iter().all(|spent| spent.forward <= 2 && spent.backward == 0));
        (outcome.success.iter().filter(|done| **done).count(), rows.len())
    }

    #[test]
    fn a_black_box_is_fooled_through_a_distilled_network() {
        for distillation in [Distillation::Static, Distillation::Dynamic] {
            let (hidden, of) = hidden_from_black_box(distillation);
            assert!(hidden == of && of > 2, "{distillation:?}: {hidden} of {of}");
        }
    }

    #[test]
    fn each_dynamic_round_asks_about_the_points_of_the_one_before() {
        let (model, samples) = (BlackBox(suite::linear_binary()), random(10, 200.0));
        let threat = ThreatModel::new(Norm::Linf, 300.0, suite::ct_domain()).unwrap();
        let goal = Goal::FalsePositive { finding: 0 };
        let network = NetworkConfig { steps: 2, ..config().network };
        for (distillation, expected) in [(Distillation::Static, 1), (Distillation::Dynamic, 3)] {
            let oracle = Oracle::new(&model, None);
            let problem =
                AttackProblem { oracle: &oracle, inputs: &samples, goal: &goal, threat: &threat, seed: Seed(1) };
            let config = AdvGanConfig { distillation, rounds: 3, distillation_steps: 2, network, ..config() };
            advgan(config).pair(&problem).unwrap();
            assert!((0..10).all(|sample| oracle.queries(sample).forward == expected), "{distillation:?}");
        }
    }

    #[test]
    fn a_distilled_network_agrees_with_what_it_learned_and_its_gradient_with_differences() {
        for task in [Task::Binary { threshold: 0.7 }, Task::MultiClass { classes: 3 }] {
            let domain = nocebo_core::Domain::grey_levels(&[2], 255.0).unwrap();
            let class_names = (0..task.classes()).map(|class| class.to_string()).collect();
            let spec = ModelSpec { domain, task: task.clone(), class_names };
            let config = AdvGanConfig { distillation_steps: 200, ..config() };
            let network = config.network.classifier(&[2], &[task.outputs()], Seed(5)).unwrap();
            let mut distilled = Distilled { network, spec };
            let samples = Samples::new(vec![10.0, 20.0, 30.0, 10.0, 200.0, 30.0, 220.0, 60.0], &[2]).unwrap();
            let wanted = [0, 0, 1, 1];
            let answers: Vec<f32> = wanted
                .iter()
                .flat_map(|&class| match task {
                    Task::Binary { .. } => vec![if class == 1 { 4.7 } else { -3.3 }],
                    _ => (0..3).map(|other| if other == class { 8.0 } else { 0.0 }).collect(),
                })
                .collect();
            let answers = Samples::new(answers, &[task.outputs()]).unwrap();
            distilled.learn(&samples, &answers, &config, Seed(2)).unwrap();
            assert_eq!(suite::decided(&distilled, &samples), wanted.map(Label::Class), "{task:?}");
            let goal = Goal::Untargeted { labels: wanted.map(Label::Class).to_vec() };
            let objective = GoalObjective::new(&goal, &task, Loss::Margin).unwrap();
            let slopes = distilled.gradient(&samples, &objective).unwrap().inputs;
            for element in 0..2 {
                let at = |shift: f32| {
                    let mut moved = samples.clone();
                    moved.rows_mut().for_each(|row| row[element] += shift);
                    distilled.gradient(&moved, &objective).unwrap().values
                };
                let (up, here, down) = (at(0.1), at(0.0), at(-0.1));
                for row in 0..4 {
                    // A leaky ReLU may have its corner on one side.
                    let ours = slopes.row(row)[element];
                    let sides = [(up[row] - here[row]) / 0.1, (here[row] - down[row]) / 0.1];
                    let close = sides.iter().any(|side| (side - ours).abs() < 0.02 * side.abs() + 1e-3);
                    assert!(close, "{task:?} {row}: {sides:?} {ours}");
                }
            }
        }
    }

    #[test]
    fn the_learned_attack_passes_the_mechanics_of_the_suite() {
        testing::mechanics(&advgan(config()));
        let network = NetworkConfig { steps: 10, ..config().network };
        testing::mechanics(&advgan(AdvGanConfig { distillation: Distillation::Dynamic, network, ..config() }));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in [
            "alpha = 1.0",
            "confidence = -1.0",
            "discriminator_weight = nan",
            "hinge_weight = inf",
            "hinge_bound = 1.5",
            "distillation = \"both\"",
            "rounds = 0",
            "distillation_steps = 0",
            "network = { steps = 0 }",
        ] {
            assert!(toml::from_str::<AdvGan>(text).is_err(), "{text}");
        }
        assert!(toml::from_str::<AdvGan>("distillation = \"dynamic\"").is_ok());
    }
}
