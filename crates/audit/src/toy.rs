//! Models, attacks and data with known answers, for the tests of this crate.

use std::collections::BTreeMap;

use nocebo_core::{
    Attack, AttackInfo, AttackOutcome, AttackProblem, DifferentiableModel, Domain, Error, Goal, GoalKind, Gradient,
    Knowledge, Label, Loss, MaskTolerance, Model, ModelSpec, Norm, Objective, Outputs, Perturbation, Queries, Samples,
    Seed, Segmentation, Task, ThreatModel,
};

use crate::{AttackEntry, AuditData, AuditSettings, CONTROL, InputFile, Provenance, Threat};

/// Side lengths of a sample: 4 pixels.
pub(crate) const SHAPE: [usize; 3] = [1, 2, 2];

/// Two classes; the logit of class 1 above that of class 0 is `scale · (mean − 128)`.
///
/// In Linf a sample of class 1 falls from epsilon = mean − 128 on, one of class 0 above 128 − mean.
pub(crate) struct Mean {
    pub(crate) spec: ModelSpec,
    scale: f32,
}

impl Mean {
    pub(crate) fn new() -> Self {
        Self::scaled(1.0)
    }

    pub(crate) fn scaled(scale: f32) -> Self {
        let spec = ModelSpec {
            domain: domain(),
            task: Task::MultiClass { classes: 2 },
            class_names: vec!["normal".to_owned(), "pneumonia".to_owned()],
        };
        Self { spec, scale }
    }

    fn logits(&self, row: &[f32]) -> [f32; 2] {
        [0.0, self.scale * (row.iter().sum::<f32>() / row.len() as f32 - 128.0)]
    }
}

impl Model for Mean {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        Ok(Samples::new(inputs.rows().flat_map(|row| self.logits(row)).collect(), &[2])?.into())
    }
}

impl DifferentiableModel for Mean {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let outputs = self.outputs(inputs)?;
        let (mut values, mut slopes) = (Vec::new(), inputs.clone());
        for row in 0..inputs.len() {
            let mut cotangent = [0.0; 2];
            values.push(objective.evaluate(row, outputs.row(row), &mut cotangent)?);
            let slope = self.scale * cotangent[1] / inputs.elements() as f32;
            slopes.row_mut(row).fill(slope);
        }
        Ok(Gradient { outputs, values, inputs: slopes })
    }
}

/// What [`Pixels`] decides: class 1 where a pixel is above 128.
pub(crate) fn segmentation() -> Task {
    let tolerance = MaskTolerance::default();
    Task::Segmentation(Segmentation { classes: 2, shape: vec![2, 2], threshold: None, tolerance })
}

/// A segmentation: the logit of class 1 above that of class 0 is the pixel less 128.
pub(crate) struct Pixels(ModelSpec);

impl Pixels {
    pub(crate) fn new() -> Self {
        let class_names = vec!["outside".to_owned(), "inside".to_owned()];
        Self(ModelSpec { domain: domain(), task: segmentation(), class_names })
    }
}

impl Model for Pixels {
    fn spec(&self) -> &ModelSpec {
        &self.0
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        let logits = |row: &[f32]| [vec![0.0; 4], row.iter().map(|pixel| pixel - 128.0).collect()].concat();
        Ok(Samples::new(inputs.rows().flat_map(logits).collect(), &[8])?.into())
    }
}

impl DifferentiableModel for Pixels {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let outputs = self.outputs(inputs)?;
        let (mut values, mut slopes) = (Vec::new(), inputs.clone());
        for row in 0..inputs.len() {
            let mut cotangent = [0.0; 8];
            values.push(objective.evaluate(row, outputs.row(row), &mut cotangent)?);
            slopes.row_mut(row).copy_from_slice(&cotangent[4..]);
        }
        Ok(Gradient { outputs, values, inputs: slopes })
    }
}

/// A model whose every answer goes through a function of the point and the logits, and whose gradient goes through
/// another.
pub(crate) struct Bent<L, G> {
    pub(crate) inner: Mean,
    pub(crate) logits: L,
    pub(crate) gradient: G,
}

impl<L, G> Model for Bent<L, G>
where
    L: Fn(&[f32], &mut [f32]) + Send + Sync,
    G: Fn(&mut [f32]) + Send + Sync,
{
    fn spec(&self) -> &ModelSpec {
        self.inner.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        let mut outputs = self.inner.outputs(inputs)?.as_samples().clone();
        for (point, logits) in inputs.rows().zip(outputs.rows_mut()) {
            (self.logits)(point, logits);
        }
        Ok(outputs.into())
    }
}

impl<L, G> DifferentiableModel for Bent<L, G>
where
    L: Fn(&[f32], &mut [f32]) + Send + Sync,
    G: Fn(&mut [f32]) + Send + Sync,
{
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let mut gradient = self.inner.gradient(inputs, objective)?;
        gradient.outputs = self.outputs(inputs)?;
        gradient.inputs.rows_mut().for_each(&self.gradient);
        Ok(gradient)
    }
}

/// How a toy attack behaves.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Behaviour {
    /// `steps` sign steps of 2.5 epsilon / steps (one step: epsilon) along the cross-entropy gradient; keeps the last point.
    SignSteps(u32),
    /// The closed-form least Linf change for [`Mean`], plus a little.
    LeastChange,
    /// One sign step, for samples whose mean is below 128.
    OnClassZero,
    /// Uniform noise.
    Noise,
    /// Claims success at the clean point.
    Lie,
    /// Looks at the point that a sign step leads to, then returns the clean one.
    Forget,
    /// Returns a point two epsilons away, and claims success.
    Escape,
    /// Sign steps of epsilon / steps: the last one reaches the wall.
    SmallSteps(u32),
    /// Steps against the gradient.
    Backwards(u32),
}

pub(crate) struct ToyAttack {
    pub(crate) behaviour: Behaviour,
    pub(crate) knowledge: Knowledge,
    pub(crate) norms: &'static [Norm],
}

impl ToyAttack {
    pub(crate) fn entry(name: &str, behaviour: Behaviour) -> AttackEntry {
        let knowledge = if behaviour == Behaviour::Noise { Knowledge::None } else { Knowledge::Gradients };
        let attack = Self { behaviour, knowledge, norms: &[Norm::Linf] };
        AttackEntry::new(name, serde_json::json!({ "step": 1 }), Box::new(attack))
    }
}

impl Attack for ToyAttack {
    fn info(&self) -> AttackInfo {
        AttackInfo {
            name: "toy",
            title: "toy attack <b>",
            source: "none",
            family: "toy",
            norms: self.norms,
            goals: GoalKind::ALL,
            knowledge: self.knowledge,
            cost: "a few queries",
            minimum_norm: self.behaviour == Behaviour::LeastChange,
        }
    }

    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let AttackProblem { oracle, inputs, goal, threat, seed } = problem;
        let epsilon = threat.epsilon();
        let mut points = (*inputs).clone();
        let step = |points: &mut Samples, length: f32| -> Result<(), Error> {
            let objective = problem.objective(goal, Loss::CrossEntropy)?;
            let gradient = oracle.gradient(points, &objective)?;
            for (value, slope) in points.values_mut().iter_mut().zip(gradient.inputs.values()) {
                *value += if *slope == 0.0 { 0.0 } else { length * slope.signum() };
            }
            threat.project(inputs, points);
            Ok(())
        };
        match self.behaviour {
            Behaviour::SignSteps(steps) => {
                for _ in 0..steps {
                    step(&mut points, epsilon * (2.5 / steps as f32).min(1.0))?;
                }
            }
            Behaviour::SmallSteps(steps) => {
                for _ in 0..steps {
                    step(&mut points, epsilon / steps as f32)?;
                }
            }
            Behaviour::Backwards(steps) => {
                for _ in 0..steps {
                    step(&mut points, -epsilon / steps as f32)?;
                }
            }
            Behaviour::LeastChange => {
                for row in 0..inputs.len() {
                    let mean = inputs.row(row).iter().sum::<f32>() / inputs.elements() as f32;
                    let change = (128.0 - mean) + 0.25 * (128.0 - mean).signum();
                    points.row_mut(row).iter_mut().for_each(|value| *value += change);
                }
            }
            Behaviour::OnClassZero => {
                step(&mut points, epsilon)?;
                for row in (0..inputs.len()).filter(|&row| inputs.row(row)[0] > 128.0) {
                    points.copy_row(row, inputs, row);
                }
            }
            Behaviour::Noise => {
                for row in 0..inputs.len() {
                    let noise = threat.random_point(inputs.row(row), &mut seed.for_sample(inputs.indices()[row]));
                    points.row_mut(row).copy_from_slice(&noise);
                }
            }
            Behaviour::Forget => {
                step(&mut points, epsilon)?;
                oracle.outputs(&points)?;
                points = (*inputs).clone();
            }
            Behaviour::Lie | Behaviour::Escape => {}
        }
        let outputs = oracle.outputs(&points)?;
        let success = match self.behaviour {
            Behaviour::Lie => vec![true; inputs.len()],
            _ => goal.reached(&oracle.spec().task, &outputs),
        };
        Ok(Perturbation { inputs: points, success })
    }

    fn run(
        &self,
        model: &dyn DifferentiableModel,
        inputs: &Samples,
        goal: &Goal,
        threat: &ThreatModel,
        seed: Seed,
    ) -> Result<AttackOutcome, Error> {
        if self.behaviour == Behaviour::Escape {
            let mut points = inputs.clone();
            for value in points.values_mut() {
                *value += 2.0 * threat.epsilon() * (128.0 - *value).signum();
            }
            let queries = vec![Queries::default(); inputs.len()];
            return Ok(AttackOutcome { perturbed_inputs: points, success: vec![true; inputs.len()], queries });
        }
        let oracle = nocebo_core::Oracle::new(model, threat.query_limit());
        let found = self.perturb(&AttackProblem { oracle: &oracle, inputs, goal, threat, seed })?;
        let queries = inputs.indices().iter().map(|&sample| oracle.queries(sample)).collect();
        Ok(AttackOutcome { perturbed_inputs: found.inputs, success: found.success, queries })
    }
}

pub(crate) fn domain() -> Domain {
    Domain::grey_levels(&SHAPE, 255.0).unwrap()
}

/// Flat images of these means; label 1 above 128. The indices start at 100.
pub(crate) fn data(means: &[f32]) -> AuditData {
    let values = means.iter().flat_map(|&mean| [mean; 4]).collect();
    let indices = (0..means.len() as u64).map(|index| 100 + index).collect();
    AuditData {
        name: "phantoms <test>".to_owned(),
        samples: Samples::new(values, &SHAPE).unwrap().with_indices(indices).unwrap(),
        labels: means.iter().map(|&mean| Label::Class(usize::from(mean > 128.0))).collect(),
        domain: domain(),
        patients: None,
        standard_deviation: Some(50.0),
        groups: BTreeMap::new(),
        notes: Vec::new(),
    }
}

/// Five of class 0 and five of class 1; the last of each is labelled wrongly.
///
/// Margins: class 0 falls above 1, 3, 5, 30; class 1 from 1, 3, 5, 30 on.
pub(crate) fn ten() -> AuditData {
    let mut data = data(&[127.0, 125.0, 123.0, 98.0, 120.0, 129.0, 131.0, 133.0, 158.0, 140.0]);
    data.labels[4] = Label::Class(1);
    data.labels[9] = Label::Class(0);
    data
}

pub(crate) fn settings(epsilons: &[f32]) -> AuditSettings {
    AuditSettings::new(vec![Threat { norm: Norm::Linf, epsilons: epsilons.to_vec() }])
}

pub(crate) fn provenance() -> Provenance {
    Provenance {
        model: "mean.onnx".to_owned(),
        inputs: vec![InputFile { role: "model".to_owned(), name: "mean.onnx".to_owned(), sha256: "ab".repeat(32) }],
        command: Some("nocebo audit --model mean.onnx".to_owned()),
        device: "cpu".to_owned(),
        threads: 1,
        versions: BTreeMap::from([("burn".to_owned(), "0.22.1".to_owned())]),
        recipe: None,
    }
}

/// FGSM, an iterative attack, and the noise control.
pub(crate) fn attacks() -> Vec<AttackEntry> {
    vec![
        ToyAttack::entry("fgsm", Behaviour::SignSteps(1)),
        ToyAttack::entry("pgd", Behaviour::SignSteps(10)),
        ToyAttack::entry(CONTROL, Behaviour::Noise),
    ]
}
