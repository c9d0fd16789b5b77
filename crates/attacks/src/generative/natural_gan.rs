//! Natural adversarial examples: a search in the latent space of a GAN for the nearest sample that the GAN could have
//! made and the model gets wrong. Decisions only.
//!
//! ```text
//! generator, critic   max over D  min over G   mean D(x) − mean D(G(z)) − μ·mean max(0, |D(x) − D(G(z))|/‖x − G(z)‖ − 1)²
//! inverter            min over I   mean ‖G(I(x)) − x‖² + λ·‖I(G(z)) − z‖²
//! iterative search    z′ = I(x);  for the annuli (0, Δ], (Δ, 2Δ], …  draw N directions and radii, ask the model about
//!                     Π(G(z)), and keep the nearest z of the first annulus in which one reaches the goal
//! hybrid search       first the whole disc, then the disc of the nearest z found, as long as that finds one; then the
//!                     annuli within
//! ```
//!
//! Source: Zhao, Dua & Singh, ICLR 2018, arXiv:1710.11342, sections 2 and 3. Survey: \[142\].
//!
//! Differs from the source: the critic is held to slope 1 by a penalty on pairs of a clean and a made sample, which needs
//! no second derivative as the penalty on its gradient does; squares in λ's term are of z as they are, those of samples
//! are means over elements in half-ranges; the hybrid search is our reading. A point is projected onto the threat model:
//! the source has none, which is an infinite epsilon here, and with a small epsilon the point is no longer one that
//! the GAN made. The GAN is as good as its samples: look at them ([`NaturalGanAttack::made`]).

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation, Samples, Seed, ThreatModel,
};
use nocebo_graph::Network;

use super::generator::batch;
use super::networks::{NetworkConfig, scaled, unscaled};
use crate::fit::FitAttack;
use crate::gaussian::gaussian;
use crate::universal::perturbation::check_shape;

/// How the latent space is searched.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LatentSearch {
    /// From the inside, annulus by annulus.
    #[default]
    Iterative,
    /// From the outside first.
    Hybrid,
}

/// Settings of [`NaturalGan`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NaturalGanConfig {
    /// Size of the latent space; 1 to 1024.
    pub latent: usize,
    /// Steps of the critic for each of the generator; at least 1.
    pub critic_steps: usize,
    /// Weight μ of the critic's slope; finite and at least 0.
    pub slope_weight: f32,
    /// Weight λ of the latent error of the inverter; finite and at least 0.
    pub latent_weight: f32,
    /// How the latent space is searched.
    pub search: LatentSearch,
    /// Width Δ of an annulus, where the latent vectors have standard deviation 1; finite and above 0.
    pub radius_step: f32,
    /// Annuli; at least 1.
    pub annuli: usize,
    /// Points N drawn in each; at least 1.
    pub draws: usize,
    /// The three networks and their training.
    pub network: NetworkConfig,
}

impl Default for NaturalGanConfig {
    /// λ = 0.1 is the paper's for images, five critic steps and μ = 10 are usual for this kind of GAN; the rest is ours.
    fn default() -> Self {
        Self {
            latent: 16,
            critic_steps: 5,
            slope_weight: 10.0,
            latent_weight: 0.1,
            search: LatentSearch::Iterative,
            radius_step: 0.2,
            annuli: 40,
            draws: 50,
            network: NetworkConfig { momentum: 0.5, ..NetworkConfig::default() },
        }
    }
}

/// The natural GAN before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "NaturalGanConfig")]
pub struct NaturalGan(NaturalGanConfig);

impl TryFrom<NaturalGanConfig> for NaturalGan {
    type Error = Error;

    fn try_from(config: NaturalGanConfig) -> Result<Self, Error> {
        if !(1..=1024).contains(&config.latent) {
            return Err(Error::invalid("latent", "1 to 1024", config.latent));
        }
        for (field, value) in
            [("critic_steps", config.critic_steps), ("annuli", config.annuli), ("draws", config.draws)]
        {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        for (field, value) in [("slope_weight", config.slope_weight), ("latent_weight", config.latent_weight)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(field, "finite and at least 0", value));
            }
        }
        if !(config.radius_step.is_finite() && config.radius_step > 0.0) {
            return Err(Error::invalid("radius_step", "finite and above 0", config.radius_step));
        }
        config.network.check()?;
        Ok(Self(config))
    }
}

impl NaturalGan {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "natural-gan",
        title: "Natural adversarial examples (search in a GAN)",
        source: "Zhao et al. 2018, arXiv:1710.11342",
        family: "generative",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "annuli · draws queries, more for the hybrid search",
        minimum_norm: false,
    };

    /// Trains generator, critic and inverter on `samples` of the threat model's domain. Asks no model anything.
    ///
    /// # Errors
    ///
    /// When the samples do not fit the domain or are none, the networks would be too great, or training diverges.
    pub fn learned(&self, samples: &Samples, threat: &ThreatModel, seed: Seed) -> Result<NaturalGanAttack, Error> {
        let NaturalGanConfig { latent, critic_steps, network, .. } = self.0;
        threat.domain().check(samples)?;
        if samples.is_empty() {
            return Err(Error::mismatch("samples to learn from", "at least 1", 0));
        }
        let shape = samples.shape();
        let real = scaled(threat.domain(), samples);
        let mut generator = network.decoder(latent, shape, seed.named("generator"))?;
        let mut critic = network.classifier(shape, &[1], seed.named("critic"))?;
        for step in 0..network.steps {
            for turn in 0..critic_steps {
                let seed = seed.named("critic").stream((step * critic_steps + turn) as u64);
                let x = real.select(&batch(seed, real.len(), network.batch, 0));
                let made = shaped(&generator.forward(&[&latents(seed, x.len(), latent)?])?.outputs()[0], shape)?;
                self.criticise(&mut critic, &x, &made)?;
            }
            let z = latents(seed.named("generator").stream(step as u64), network.batch, latent)?;
            let pass = generator.forward(&[&z])?;
            let judged = critic.forward(&[&shaped(&pass.outputs()[0], shape)?])?;
            let share = -1.0 / z.len() as f32;
            let slopes = judged.pull_back(&[&vec![share; z.len()]])?.inputs.swap_remove(0);
            generator.step(&pass.pull_back(&[slopes.values()])?);
        }
        let mut inverter = network.classifier(shape, &[latent], seed.named("inverter"))?;
        for step in 0..network.steps {
            let seed = seed.named("inverter").stream(step as u64);
            let x = real.select(&batch(seed, real.len(), network.batch, 0));
            self.invert(&mut inverter, &generator, &x, seed)?;
        }
        Ok(NaturalGanAttack { config: self.0, generator, inverter, threat: threat.clone() })
    }

    /// One step of the critic on as many clean samples as made ones.
    fn criticise(&self, critic: &mut Network, x: &Samples, made: &Samples) -> Result<(), Error> {
        let count = x.len();
        let pass = critic.forward(&[&x.clone().joined(made)?])?;
        let said = pass.outputs()[0].values();
        let share = 1.0 / count as f32;
        let mut cotangent: Vec<f32> = (0..2 * count).map(|row| if row < count { -share } else { share }).collect();
        for row in 0..count {
            // Distances are means over elements, so that a great sample asks for no steeper critic.
            let distance = Norm::L2.distance(x.row(row), made.row(row)) as f32 / (x.elements() as f32).sqrt();
            let difference = said[row] - said[count + row];
            let surplus = difference.abs() / distance.max(1e-6) - 1.0;
            if surplus > 0.0 {
                let slope = 2.0 * self.0.slope_weight * share * surplus * difference.signum() / distance.max(1e-6);
                cotangent[row] += slope;
                cotangent[count + row] -= slope;
            }
        }
        critic.step(&pass.pull_back(&[&cotangent])?);
        Ok(())
    }

    /// One step of the inverter.
    fn invert(&self, inverter: &mut Network, generator: &Network, x: &Samples, seed: Seed) -> Result<(), Error> {
        let z = latents(seed, x.len(), self.0.latent)?;
        let made = shaped(&generator.forward(&[&z])?.outputs()[0], x.shape())?;
        let pass = inverter.forward(&[&x.clone().joined(&made)?])?;
        let found = &pass.outputs()[0];
        let rows: Vec<usize> = (0..x.len()).collect();
        let back = generator.forward(&[&found.select(&rows)])?;
        let share = 2.0 / x.len() as f32;
        let errors: Vec<f32> = back.outputs()[0]
            .values()
            .iter()
            .zip(x.values())
            .map(|(made, clean)| share * (made - clean) / x.elements() as f32)
            .collect();
        let mut cotangent = back.pull_back(&[&errors])?.inputs.swap_remove(0).values().to_vec();
        let of_made = found.values()[cotangent.len()..].iter().zip(z.values());
        cotangent.extend(of_made.map(|(found, z)| share * self.0.latent_weight * (found - z)));
        inverter.step(&pass.pull_back(&[&cotangent])?);
        Ok(())
    }
}

/// Standard normal vectors, one a row.
fn latents(seed: Seed, count: usize, size: usize) -> Result<Samples, Error> {
    let values = (0..count as u64).flat_map(|row| {
        let mut generator = seed.named("latent").for_sample(row);
        (0..size).map(move |_| gaussian(&mut generator) as f32).collect::<Vec<_>>()
    });
    Samples::new(values.collect(), &[size])
}

fn shaped(rows: &Samples, shape: &[usize]) -> Result<Samples, Error> {
    Samples::new(rows.values().to_vec(), shape)?.with_indices(rows.indices().to_vec())
}

impl FitAttack for NaturalGan {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Asks the model nothing.
    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        Ok(Box::new(self.learned(problem.inputs, problem.threat, problem.seed)?))
    }
}

/// A GAN with its inverter, to be searched.
pub struct NaturalGanAttack {
    config: NaturalGanConfig,
    generator: Network,
    inverter: Network,
    threat: ThreatModel,
}

/// A candidate that reaches the goal.
struct Found {
    distance: f32,
    point: Vec<f32>,
}

impl NaturalGanAttack {
    /// `count` samples of the GAN, in the unit of the data.
    ///
    /// # Errors
    ///
    /// None in practice: the networks are those that were trained.
    pub fn made(&self, count: usize, seed: Seed) -> Result<Samples, Error> {
        self.decoded(&latents(seed, count, self.config.latent)?)
    }

    /// What generator and inverter make of each sample: G(I(x)), in the unit of the data.
    ///
    /// # Errors
    ///
    /// When the samples have another shape than those learned from.
    pub fn reconstructed(&self, samples: &Samples) -> Result<Samples, Error> {
        self.decoded(&self.inverted(samples)?)
    }

    fn inverted(&self, samples: &Samples) -> Result<Samples, Error> {
        Ok(self.inverter.forward(&[&scaled(self.threat.domain(), samples)])?.outputs()[0].clone())
    }

    fn decoded(&self, latents: &Samples) -> Result<Samples, Error> {
        let domain = self.threat.domain();
        let made = self.generator.forward(&[latents])?.outputs()[0].clone();
        let values = made.rows().flat_map(|row| unscaled(domain, row)).collect();
        Samples::new(values, domain.shape())?.with_indices(latents.indices().to_vec())
    }

    /// The nearest of N candidates at distances in `(inner, outer]` that reaches the goal; and the nearest of all.
    fn look(
        &self,
        problem: &AttackProblem<'_>,
        row: usize,
        centre: &[f32],
        (inner, outer): (f32, f32),
        draw: u64,
    ) -> Result<(Option<Found>, Option<Vec<f32>>), Error> {
        let index = problem.inputs.indices()[row];
        let count = self.config.draws.min(problem.oracle.remaining(index) as usize);
        if count == 0 {
            return Ok((None, None));
        }
        let mut generator = problem.seed.stream(draw).for_sample(index);
        let mut candidates: Vec<(f32, Vec<f32>)> = (0..count)
            .map(|_| {
                let direction: Vec<f64> = centre.iter().map(|_| gaussian(&mut generator)).collect();
                let length = direction.iter().map(|part| part * part).sum::<f64>().sqrt().max(1e-12);
                let radius = outer - (outer - inner) * generator.random::<f32>();
                let moved =
                    centre.iter().zip(&direction).map(|(z, part)| z + radius * (part / length) as f32).collect();
                (radius, moved)
            })
            .collect();
        candidates.sort_by(|a, b| a.0.total_cmp(&b.0));
        let latents = candidates.iter().flat_map(|(_, z)| z.iter().copied()).collect();
        let latents = Samples::new(latents, &[self.config.latent])?.with_indices(vec![index; count])?;
        let mut points = self.decoded(&latents)?;
        for point in points.rows_mut() {
            problem.threat.project_row(problem.inputs.row(row), point);
        }
        let outputs = problem.oracle.outputs(&points)?;
        let goal = problem.goal.select(&vec![row; count]);
        let reached = goal.reached(&problem.oracle.spec().task, &outputs).iter().position(|reached| *reached);
        let found = reached.map(|at| Found { distance: candidates[at].0, point: points.row(at).to_vec() });
        Ok((found, Some(points.row(0).to_vec())))
    }
}

impl NaturalGanAttack {
    /// The nearest point that reaches the goal, and the nearest of the last ones that were looked at.
    fn search(
        &self,
        problem: &AttackProblem<'_>,
        row: usize,
        centre: &[f32],
    ) -> Result<(Option<Found>, Option<Vec<f32>>), Error> {
        let (mut best, mut last): (Option<Found>, _) = (None, None);
        let mut draw = 0;
        let mut outer = self.config.annuli as f32 * self.config.radius_step;
        while self.config.search == LatentSearch::Hybrid && draw < self.config.annuli as u64 {
            let (found, nearest) = self.look(problem, row, centre, (0.0, outer), draw)?;
            (draw, last) = (draw + 1, nearest.or(last));
            let Some(found) = found else { break };
            outer = found.distance;
            best = Some(found);
        }
        let mut inner = 0.0;
        while inner < outer {
            let until = (inner + self.config.radius_step).min(outer);
            let (found, nearest) = self.look(problem, row, centre, (inner, until), draw)?;
            if nearest.is_none() {
                break;
            }
            (draw, last) = (draw + 1, nearest);
            if found.is_some() {
                best = found;
                break;
            }
            inner = until;
        }
        Ok((best, last))
    }
}

impl Attack for NaturalGanAttack {
    fn info(&self) -> AttackInfo {
        NaturalGan::INFO
    }

    /// Costs up to `annuli · draws` queries a sample, and for the hybrid search as many more as its discs take.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        check_shape(problem, self.threat.domain().shape())?;
        let centres = self.inverted(problem.inputs)?;
        let (mut inputs, mut success) = (problem.inputs.clone(), Vec::with_capacity(problem.inputs.len()));
        for (row, centre) in centres.rows().enumerate() {
            let (best, last) = self.search(problem, row, centre)?;
            success.push(best.is_some());
            if let Some(point) = best.map(|best| best.point).or(last) {
                inputs.row_mut(row).copy_from_slice(&point);
            }
        }
        Ok(Perturbation { inputs, success })
    }
}

#[cfg(test)]
mod tests {
    use super::super::networks;
    use super::*;
    use nocebo_core::{BlackBox, Domain, Goal, Task};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    fn plane() -> Domain {
        Domain::grey_levels(&[2], 255.0).unwrap()
    }

    /// Samples along the diagonal, with little noise across it.
    fn diagonal() -> Samples {
        let values = (0..120).flat_map(|at| {
            let mut generator = Seed(8).for_sample(at);
            let along = generator.random_range(60.0_f32..195.0);
            [along + generator.random_range(-8.0_f32..8.0), along + generator.random_range(-8.0_f32..8.0)]
        });
        Samples::new(values.collect(), &[2]).unwrap()
    }

    /// Class 1 where the first value is great: the shortest way there leaves the diagonal.
    fn first() -> Linear {
        Linear::new(plane(), Task::Binary { threshold: 0.0 }, vec![vec![0.3, 0.0]], vec![-0.3 * 127.0])
    }

    fn natural(search: LatentSearch) -> NaturalGan {
        let network = NetworkConfig {
            steps: 200,
            hidden: 12,
            batch: 16,
            learning_rate: 0.01,
            momentum: 0.5,
            ..networks::testing::tiny()
        };
        let config = NaturalGanConfig { latent: 2, critic_steps: 3, search, network, ..NaturalGanConfig::default() };
        NaturalGan::try_from(config).unwrap()
    }

    fn anything() -> ThreatModel {
        ThreatModel::new(Norm::L2, f32::INFINITY, plane()).unwrap()
    }

    fn across(row: &[f32]) -> f32 {
        (row[0] - row[1]).abs()
    }

    #[test]
    fn the_gan_makes_what_it_has_seen_and_the_inverter_finds_it() {
        let samples = diagonal();
        let attack = natural(LatentSearch::Iterative).learned(&samples, &anything(), Seed(1)).unwrap();
        let made = attack.made(200, Seed(3)).unwrap();
        let along: Vec<f32> = made.rows().map(|row| 0.5 * (row[0] + row[1])).collect();
        let mean = along.iter().sum::<f32>() / 200.0;
        let spread = (along.iter().map(|part| (part - mean).powi(2)).sum::<f32>() / 200.0).sqrt();
        let off = made.rows().map(across).sum::<f32>() / 200.0;
        // 127.5, 39 and about 5 for the samples themselves.
        assert!((mean - 127.5).abs() < 20.0 && (20.0..60.0).contains(&spread) && off < 15.0, "{mean} {spread} {off}");
        let back = attack.reconstructed(&samples).unwrap();
        let error = samples.rows().zip(back.rows()).map(|(x, y)| Norm::L2.distance(x, y)).sum::<f64>() / 120.0;
        assert!(error < 25.0, "{error}");
    }

    #[test]
    fn finds_natural_points_by_decisions_alone() {
        let samples = diagonal();
        let held_out = samples.select(&(0..20).collect::<Vec<_>>());
        let rows: Vec<usize> = (20..120).collect();
        let goal = Goal::Untargeted { labels: suite::decided(&first(), &held_out) };
        for search in [LatentSearch::Iterative, LatentSearch::Hybrid] {
            let attack = natural(search).learned(&samples.select(&rows), &anything(), Seed(1)).unwrap();
            let outcome = attack.run(&BlackBox(first()), &held_out, &goal, &anything(), Seed(1)).unwrap();
            let done = outcome.success.iter().filter(|done| **done).count();
            assert!(done >= 18, "{search:?}: {done}");
            // The shortest way out leaves the diagonal.
            let least = held_out.rows().map(|row| first().least_change(Norm::L2, row) as f32);
            let (off, least) =
                (outcome.perturbed_inputs.rows().map(across).sum::<f32>() / 20.0, least.sum::<f32>() / 20.0);
            assert!(off < 0.65 * least, "{search:?}: {off} against {least}");
        }
    }

    #[test]
    fn of_several_candidates_the_nearest_is_taken() {
        let samples = diagonal();
        let network = NetworkConfig { steps: 2, ..networks::testing::tiny() };
        let config = NaturalGanConfig { network, ..natural(LatentSearch::Iterative).0 };
        let attack = NaturalGan(config).learned(&samples, &anything(), Seed(1)).unwrap();
        // Every point reaches this goal.
        let (goal, threat, model) = (Goal::FalseNegative { finding: 1 }, anything(), constant());
        let oracle = nocebo_core::Oracle::new(&model, None);
        let problem = AttackProblem { oracle: &oracle, inputs: &samples, goal: &goal, threat: &threat, seed: Seed(1) };
        let found = attack.look(&problem, 0, &[0.0, 0.0], (1.0, 2.0), 0).unwrap().0.unwrap();
        // The least of 50 radii.
        assert!(found.distance > 1.0 && found.distance < 1.15, "{}", found.distance);
    }

    /// Never class 1.
    fn constant() -> Linear {
        Linear::new(plane(), Task::Binary { threshold: 0.0 }, vec![vec![0.0, 0.0]], vec![-1.0])
    }

    #[test]
    fn an_epsilon_is_kept_and_the_search_is_short_where_queries_are_few() {
        let samples = diagonal();
        let few = samples.select(&(0..12).collect::<Vec<_>>());
        let goal = Goal::Untargeted { labels: suite::decided(&first(), &few) };
        let attack = natural(LatentSearch::Iterative).learned(&samples, &anything(), Seed(1)).unwrap();
        let threat = ThreatModel::new(Norm::L2, 20.0, plane()).unwrap().with_query_limit(70);
        let outcome = attack.run(&first(), &few, &goal, &threat, Seed(1)).unwrap();
        for (clean, point) in few.rows().zip(outcome.perturbed_inputs.rows()) {
            assert!(threat.allows(clean, point));
        }
        assert!(outcome.queries.iter().all(|spent| spent.forward <= 70));
    }

    #[test]
    fn the_learned_attack_passes_the_mechanics_of_the_suite() {
        let threat = ThreatModel::new(Norm::Linf, 100.0, suite::ct_domain()).unwrap();
        for search in [LatentSearch::Iterative, LatentSearch::Hybrid] {
            let network = NetworkConfig { steps: 5, ..networks::testing::tiny() };
            let config = NaturalGanConfig { latent: 2, annuli: 4, draws: 5, ..natural(search).0 };
            let attack = NaturalGan::try_from(NaturalGanConfig { network, ..config }).unwrap();
            let attack = attack.learned(&suite::ct_samples(), &threat, Seed(1)).unwrap();
            assert_eq!(suite::check_mechanics(&attack), Ok(()));
        }
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in [
            "lambda = 0.1",
            "latent = 0",
            "critic_steps = 0",
            "slope_weight = -1.0",
            "latent_weight = nan",
            "search = \"random\"",
            "radius_step = 0.0",
            "annuli = 0",
            "draws = 0",
            "network = { width = 0 }",
        ] {
            assert!(toml::from_str::<NaturalGan>(text).is_err(), "{text}");
        }
        let nothing = Samples::zeros(0, &[2]).unwrap();
        assert!(natural(LatentSearch::Hybrid).learned(&nothing, &anything(), Seed(1)).is_err());
    }
}
