//! Black-box attack through a substitute model, with Jacobian-based augmentation.
//!
//! ```text
//! S₀ a small set;  in round ρ:  ask the model for its decisions O(x) on what is new in S;  train a substitute F on S
//!     S ← S ∪ { clip(x + λ_ρ·sign ∂F_{O(x)}(x)/∂x) },  λ_ρ = λ·(−1)^⌊ρ/τ⌋
//!     after σ rounds only for κ members of S, chosen by reservoir sampling
//! then a gradient attack on F makes the points, and they are shown to the model
//! ```
//!
//! Source: Papernot, `McDaniel` & Goodfellow 2016, arXiv:1605.07277, sections 4 and 5 (periodic step, reservoir); Papernot
//! et al. 2017, arXiv:1602.02697. Survey: \[95\].
//!
//! Differs from the source: a network learns anew in each round, by Adam instead of momentum; one of another kind than the
//! settings name is trained by whatever is given to [`Substitute::learn_with`]. The attack on it is MI-FGSM, which takes all its steps; with
//! one step and a relative step size of 1 it is the fast gradient sign method of the paper. An attack that stops where the
//! substitute is fooled leaves alone what the substitute gets wrong already.

use std::sync::Arc;

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    ActiveSet, Attack, AttackInfo, AttackProblem, DifferentiableModel, Error, Goal, GoalKind, GoalObjective, Knowledge,
    Label, Loss, ModelSpec, Norm, Oracle, Perturbation, Samples, Task, ThreatModel,
};
use nocebo_graph::train::Labelled;

use super::logistic::Logistic;
use super::network;
use crate::fit::FitAttack;
use crate::gradient::search::look;
use crate::gradient::step::sign;
use crate::transfer::momentum::mask;

/// The architecture that is no network.
const LOGISTIC: &str = "logistic";

/// Settings of [`Substitute`].
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubstituteConfig {
    /// Name in the catalogue of the gradient attack on the substitute.
    pub attack: String,
    /// What the substitute is: `logistic` for a logistic regression, or a network of the zoo such as `mlp`, `small-cnn`.
    pub architecture: String,
    /// Rounds of augmentation; 0 trains on the given set alone.
    pub rounds: u32,
    /// Step λ of the augmentation as a fraction of the range of the bounds; finite and above 0.
    pub step_fraction: f32,
    /// Rounds τ after which the step changes its sign; at least 1.
    pub period: u32,
    /// Rounds σ in which every member of the set is augmented; later ones augment only `reservoir` of them.
    pub full_rounds: u32,
    /// Members κ augmented in later rounds; at least 1.
    pub reservoir: usize,
    /// Steps of training a logistic regression in each round; at least 1.
    pub training_steps: usize,
    /// Learning rate of a logistic regression, on inputs scaled to [−1, 1]; finite and above 0.
    pub learning_rate: f32,
    /// Passes over the set that a network learns from in each round; at least 1.
    pub epochs: usize,
    /// Greatest learning rate of a network; finite and above 0.
    pub network_learning_rate: f32,
    /// Settings of the attack.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub settings: toml::Table,
}

impl Default for SubstituteConfig {
    /// λ, τ, κ and the epochs are the paper's; rounds and the rest of training are ours.
    fn default() -> Self {
        Self {
            attack: "mi-fgsm".to_owned(),
            architecture: LOGISTIC.to_owned(),
            rounds: 6,
            step_fraction: 0.1,
            period: 3,
            full_rounds: 3,
            reservoir: 400,
            training_steps: 100,
            learning_rate: 0.05,
            epochs: 10,
            network_learning_rate: 1e-3,
            settings: toml::Table::new(),
        }
    }
}

/// The substitute attack before it has learned; holds only settings that have been checked.
pub struct Substitute {
    config: SubstituteConfig,
    norms: &'static [Norm],
}

impl TryFrom<SubstituteConfig> for Substitute {
    type Error = Error;

    fn try_from(config: SubstituteConfig) -> Result<Self, Error> {
        let norms = crate::catalogue::build(&config.attack, config.settings.clone())?.info().norms;
        if config.period == 0 {
            return Err(Error::invalid("period", "at least 1", config.period));
        }
        if config.architecture != LOGISTIC && !nocebo_graph::zoo::names().any(|name| name == config.architecture) {
            return Err(Error::invalid("architecture", "`logistic` or a network of the zoo", config.architecture));
        }
        for (field, value) in
            [("reservoir", config.reservoir), ("training_steps", config.training_steps), ("epochs", config.epochs)]
        {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        // The set doubles in every full round.
        if config.full_rounds > 16 || config.rounds > 1000 {
            let rounds = format!("{} full, {} in all", config.full_rounds, config.rounds);
            return Err(Error::invalid("rounds", "at most 1000, of them at most 16 full", rounds));
        }
        for (field, value) in [
            ("step_fraction", config.step_fraction),
            ("learning_rate", config.learning_rate),
            ("network_learning_rate", config.network_learning_rate),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::invalid(field, "finite and above 0", value));
            }
        }
        Ok(Self { config, norms })
    }
}

/// Trains a substitute for a model with this spec from samples and the decisions on them.
pub type Train<'t> = dyn Fn(&ModelSpec, &Samples, &[Label]) -> Result<Arc<dyn DifferentiableModel>, Error> + 't;

impl Substitute {
    /// What this attack is. The norms are those of the attack on the substitute, here of the default one.
    pub const INFO: AttackInfo = AttackInfo {
        name: "substitute",
        title: "Substitute model with Jacobian-based augmentation",
        source: "Papernot et al. 2016, arXiv:1605.07277",
        family: "transfer",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "1 query; learning: 1 query a member of the grown set",
        minimum_norm: false,
    };

    /// Learns with a substitute of any kind.
    ///
    /// Costs one query for each member of the final set, of which only the decision is used.
    ///
    /// # Errors
    ///
    /// Whatever the model or the training returns.
    pub fn learn_with(&self, problem: &AttackProblem<'_>, train: &Train<'_>) -> Result<SubstituteAttack, Error> {
        let (spec, domain) = (problem.oracle.spec(), problem.threat.domain());
        let decide = |samples: &Samples| -> Result<Vec<Label>, Error> {
            Ok(problem.oracle.outputs(samples)?.rows().map(|logits| spec.task.decide(logits)).collect())
        };
        let mut set = problem.inputs.clone();
        let mut labels = decide(&set)?;
        let mut model = train(spec, &set, &labels)?;
        for round in 0..self.config.rounds {
            let rows = if round < self.config.full_rounds {
                (0..set.len()).collect()
            } else {
                let mut generator = problem.seed.named("reservoir").for_sample(u64::from(round));
                reservoir(set.len(), self.config.reservoir, &mut generator)
            };
            let forth = if (round / self.config.period).is_multiple_of(2) { 1.0 } else { -1.0 };
            let step = forth * self.config.step_fraction * domain.range();
            let mut new = set.select(&rows);
            let own: Vec<Label> = rows.iter().map(|&row| labels[row].clone()).collect();
            let mut slopes = Oracle::new(&*model, None).gradient(&new, &Decided::new(&own, &spec.task)?)?.inputs;
            for (row, slopes) in slopes.rows_mut().enumerate() {
                mask(domain, slopes);
                for (element, (value, slope)) in new.row_mut(row).iter_mut().zip(slopes).enumerate() {
                    let moved = *value + step * sign(*slope);
                    *value = moved.clamp(domain.lower()[element], domain.upper()[element]);
                }
            }
            labels.extend(decide(&new)?);
            set = set.joined(&new)?;
            model = train(spec, &set, &labels)?;
        }
        let attack = crate::catalogue::build(&self.config.attack, self.config.settings.clone())?;
        Ok(SubstituteAttack { attack, model })
    }
}

/// `count` of `from` members, each with the same chance (Vitter 1985, algorithm R), in order.
fn reservoir(from: usize, count: usize, generator: &mut impl RngExt) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..count.min(from)).collect();
    for member in count..from {
        let place = generator.random_range(0..=member);
        if place < count {
            kept[place] = member;
        }
    }
    kept.sort_unstable();
    kept
}

/// How sure the substitute is of what the model decided.
struct Decided<'a> {
    /// The goal of each row by itself, since a decision may be of either kind.
    goals: Vec<Goal>,
    task: &'a Task,
}

impl<'a> Decided<'a> {
    fn new(labels: &[Label], task: &'a Task) -> Result<Self, Error> {
        let goals = labels.iter().map(|label| Goal::Untargeted { labels: vec![label.clone()] }).collect();
        labels.iter().try_for_each(|label| task.check_label(label))?;
        Ok(Self { goals, task })
    }
}

impl nocebo_core::Objective for Decided<'_> {
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        let away = GoalObjective::new(&self.goals[row], self.task, Loss::CrossEntropy)?;
        let value = away.evaluate(0, outputs, cotangent)?;
        for part in cotangent {
            *part = -*part;
        }
        Ok(-value)
    }
}

impl FitAttack for Substitute {
    fn info(&self) -> AttackInfo {
        AttackInfo { norms: self.norms, ..Self::INFO }
    }

    /// Learns with the architecture of the settings; see [`Substitute::learn_with`].
    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        let SubstituteConfig { training_steps, learning_rate, epochs, network_learning_rate, .. } = self.config;
        let train =
            |spec: &ModelSpec, samples: &Samples, labels: &[Label]| -> Result<Arc<dyn DifferentiableModel>, Error> {
                if self.config.architecture == LOGISTIC {
                    return Ok(Arc::new(Logistic::train(spec, samples, labels, training_steps, learning_rate)?));
                }
                let data = Labelled { samples, labels };
                let architecture = &self.config.architecture;
                Ok(Arc::new(network::train(architecture, spec, data, epochs, network_learning_rate, problem.seed)?))
            };
        Ok(Box::new(self.learn_with(problem, &train)?))
    }
}

/// A gradient attack on a substitute, shown to the model.
pub struct SubstituteAttack {
    attack: Box<dyn Attack>,
    model: Arc<dyn DifferentiableModel>,
}

impl SubstituteAttack {
    /// The trained substitute.
    pub fn model(&self) -> &dyn DifferentiableModel {
        &*self.model
    }
}

impl Attack for SubstituteAttack {
    fn info(&self) -> AttackInfo {
        AttackInfo { norms: self.attack.info().norms, ..Substitute::INFO }
    }

    /// Costs one query a sample; the substitute is free.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let (threat, task) = (problem.threat, &self.model.spec().task);
        if *task != problem.oracle.spec().task {
            let tasks = (format!("{task:?}"), format!("{:?}", problem.oracle.spec().task));
            return Err(Error::mismatch("task of the model that a substitute was trained for", tasks.0, tasks.1));
        }
        let unlimited = ThreatModel::new(threat.norm(), threat.epsilon(), threat.domain().clone())?;
        let oracle = Oracle::new(&*self.model, None);
        let found = self.attack.perturb(&AttackProblem { oracle: &oracle, threat: &unlimited, ..*problem })?;
        let mut active = ActiveSet::new(problem);
        look(problem, &mut active, &found.inputs)?;
        Ok(active.finish(&found.inputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{BlackBox, Model, Seed};
    use nocebo_testkit::models::Quadratic;
    use nocebo_testkit::suite;

    fn substitute(text: &str) -> Substitute {
        Substitute::try_from(toml::from_str::<SubstituteConfig>(text).unwrap()).unwrap()
    }

    /// Forty samples over much of the bounds of the toy models.
    fn spread() -> Samples {
        Samples::new((0..40 * 12).map(|at| ((at * 7919) % 3001) as f32 - 1000.0).collect(), &[1, 3, 4]).unwrap()
    }

    fn fitted(config: &str) -> Box<dyn Attack> {
        let model = BlackBox(suite::linear_binary());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &spread()) };
        let threat = ThreatModel::new(Norm::Linf, 1.0, suite::ct_domain()).unwrap();
        substitute(config).fit(&model, &spread(), &goal, &threat, Seed(1)).unwrap()
    }

    #[test]
    fn flips_a_linear_model_that_only_answers() {
        let attack = fitted("");
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let most = (0..8).map(|row| model.least_change(Norm::Linf, samples.row(row))).fold(0.0, f64::max);
        let threat = ThreatModel::new(Norm::Linf, 1.3 * most as f32, suite::ct_domain()).unwrap();
        let model = BlackBox(model);
        let run = |attack: &dyn Attack| attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        let flipped = |attack: &dyn Attack| run(attack).success.iter().filter(|done| **done).count();
        let noise = crate::catalogue::build("noise", toml::Table::new()).unwrap();
        assert!(flipped(&*attack) >= 7 && flipped(&*noise) <= 4, "{} {}", flipped(&*attack), flipped(&*noise));
        let outcome = run(&*attack);
        assert!(outcome.queries.iter().all(|spent| spent.forward == 2 && spent.backward == 0));
    }

    #[test]
    fn a_network_learns_what_a_line_cannot() {
        // Present inside a ball around the middle of the samples.
        let centre = vec![500.0; 12];
        let model = BlackBox(Quadratic::new(suite::ct_domain(), centre, 2900.0));
        let samples = spread();
        let labels = suite::decided(&model, &samples);
        let inside = labels.iter().filter(|label| **label == Label::Class(0)).count();
        assert!((12..29).contains(&inside), "{inside}");
        let threat = ThreatModel::new(Norm::Linf, 1.0, suite::ct_domain()).unwrap();
        let agreeing = |text: &str| {
            let oracle = Oracle::new(&model, None);
            let goal = Goal::Untargeted { labels: labels.clone() };
            let problem =
                AttackProblem { oracle: &oracle, inputs: &samples, goal: &goal, threat: &threat, seed: Seed(1) };
            let substitute = substitute(text);
            let train = |spec: &ModelSpec,
                         samples: &Samples,
                         labels: &[Label]|
             -> Result<Arc<dyn DifferentiableModel>, Error> {
                let config = &substitute.config;
                Ok(if config.architecture == LOGISTIC {
                    Arc::new(Logistic::train(spec, samples, labels, config.training_steps, config.learning_rate)?)
                } else {
                    let data = Labelled { samples, labels };
                    let rate = config.network_learning_rate;
                    Arc::new(network::train(&config.architecture, spec, data, config.epochs, rate, Seed(1))?)
                })
            };
            let learned = substitute.learn_with(&problem, &train).unwrap();
            let own = suite::decided(learned.model(), &samples);
            own.iter().zip(&labels).filter(|(own, label)| own == label).count()
        };
        let (network, line) = (
            agreeing("architecture = \"mlp\"\nrounds = 1\nepochs = 40\nnetwork_learning_rate = 0.003"),
            agreeing("rounds = 1"),
        );
        assert!(network >= 36 && network > line, "{network} {line}");
    }

    #[test]
    fn a_network_flips_a_linear_model_that_only_answers() {
        let config = "architecture = \"mlp\"\nrounds = 2\nepochs = 20\nnetwork_learning_rate = 0.003";
        let attack = fitted(config);
        let (model, samples) = (suite::linear_binary(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let most = (0..8).map(|row| model.least_change(Norm::Linf, samples.row(row))).fold(0.0, f64::max);
        let threat = ThreatModel::new(Norm::Linf, 2.0 * most as f32, suite::ct_domain()).unwrap();
        let flipped = |attack: &dyn Attack| {
            attack.run(&BlackBox(suite::linear_binary()), &samples, &goal, &threat, Seed(1)).unwrap().success
        };
        let count = flipped(&*attack).iter().filter(|done| **done).count();
        assert!(count >= 7, "{count}");
        assert_eq!(flipped(&*fitted(config)), flipped(&*attack));
    }

    #[test]
    fn serves_other_goals_but_not_another_task() {
        let model = suite::linear_classifier();
        let labels = suite::decided(&model, &spread());
        let threat = ThreatModel::new(Norm::Linf, 1.0, suite::ct_domain()).unwrap();
        let fit = substitute("rounds = 1").fit(&model, &spread(), &Goal::Untargeted { labels }, &threat, Seed(1));
        let attack = fit.unwrap();
        let alone = suite::ct_samples();
        assert!(attack.run(&model, &alone, &Goal::FalsePositive { finding: 2 }, &threat, Seed(1)).is_ok());
        assert!(attack.info().knowledge == Knowledge::Decisions && attack.info().norms.len() == 2);
        let other = suite::linear_binary();
        let answer = attack.run(&other, &alone, &Goal::FalseNegative { finding: 1 }, &threat, Seed(1));
        assert!(matches!(answer, Err(Error::Mismatch { .. })), "{answer:?}");
    }

    #[test]
    fn the_set_grows_by_the_rule_and_the_step_turns() {
        let sizes = std::sync::Mutex::new(Vec::new());
        let first_new = std::sync::Mutex::new(Vec::new());
        let spec = suite::linear_binary().spec().clone();
        let samples = spread().select(&(0..10).collect::<Vec<_>>());
        let train = |spec: &ModelSpec, samples: &Samples, labels: &[Label]| {
            let mut sizes = sizes.lock().unwrap();
            if let Some(&before) = sizes.last() {
                first_new.lock().unwrap().push(samples.row(before)[1]);
            }
            sizes.push(samples.len());
            assert_eq!(samples.len(), labels.len());
            Ok(Arc::new(Logistic::train(spec, samples, labels, 20, 0.05)?) as Arc<dyn DifferentiableModel>)
        };
        let model = suite::linear_binary();
        let oracle = Oracle::new(&model, None);
        let goal = Goal::FalsePositive { finding: 1 };
        let threat = ThreatModel::new(Norm::Linf, 1.0, spec.domain.clone()).unwrap();
        let problem = AttackProblem { oracle: &oracle, inputs: &samples, goal: &goal, threat: &threat, seed: Seed(1) };
        let config = "rounds = 4\nfull_rounds = 2\nreservoir = 7\nperiod = 1\nstep_fraction = 0.01";
        substitute(config).learn_with(&problem, &train).unwrap();
        assert_eq!(*sizes.lock().unwrap(), [10, 20, 40, 47, 54]);
        // The first sample goes one way in the first round and the other way in the second.
        let moved: Vec<f32> = first_new.lock().unwrap().iter().take(2).map(|value| value - samples.row(0)[1]).collect();
        assert!((moved[0].abs() - 40.95).abs() < 1e-2 && (moved[0] + moved[1]).abs() < 1e-2, "{moved:?}");
    }

    #[test]
    fn a_reservoir_holds_each_member_alike() {
        let mut counts = [0; 10];
        for draw in 0..2000 {
            let kept = reservoir(10, 3, &mut Seed(1).for_sample(draw));
            assert!(kept.len() == 3 && kept.windows(2).all(|pair| pair[0] < pair[1]));
            for member in kept {
                counts[member] += 1;
            }
        }
        assert!(counts.iter().all(|count| (500..700).contains(count)), "{counts:?}");
        assert_eq!(reservoir(2, 3, &mut Seed(1).for_sample(0)), [0, 1]);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        let build = |text: &str| Substitute::try_from(toml::from_str::<SubstituteConfig>(text).ok()?).ok();
        for text in [
            "attack = \"pdg\"",
            "architecture = \"vgg\"",
            "epochs = 0",
            "network_learning_rate = 0.0",
            "period = 0",
            "reservoir = 0",
            "full_rounds = 17",
            "step_fraction = 0.0",
            "learning_rate = nan",
            "lambda = 0.1",
            "[settings]\nstepz = 1",
        ] {
            assert!(build(text).is_none(), "{text}");
        }
        assert!(build("attack = \"pgd\"\n[settings]\nsteps = 5").is_some());
    }
}
