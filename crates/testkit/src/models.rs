//! Networks small enough to know the least perturbation that changes their decision.

use std::sync::{Mutex, PoisonError};

use nocebo_core::{
    DifferentiableModel, Domain, Error, Gradient, Label, Model, ModelSpec, Norm, Objective, Outputs, Samples, Task,
};

/// `logits = W·x + b`, with any task.
///
/// The least change that moves the decision from class y to class j is `(z_y − z_j) / ‖w_y − w_j‖` in the dual norm,
/// as long as the bounds are out of reach.
#[derive(Clone, Debug)]
pub struct Linear {
    spec: ModelSpec,
    weights: Vec<Vec<f32>>,
    biases: Vec<f32>,
}

impl Linear {
    /// A model with one row of `weights` and one bias a logit.
    ///
    /// # Panics
    ///
    /// When the sizes do not fit each other.
    pub fn new(domain: Domain, task: Task, weights: Vec<Vec<f32>>, biases: Vec<f32>) -> Self {
        assert!(weights.len() == task.outputs() && biases.len() == task.outputs());
        assert!(weights.iter().all(|row| row.len() == domain.elements()));
        let class_names = (0..task.classes()).map(|class| format!("class {class}")).collect();
        Self { spec: ModelSpec { domain, task, class_names }, weights, biases }
    }

    /// Weights, one row a logit, and biases.
    pub fn layer(&self) -> (&[Vec<f32>], &[f32]) {
        (&self.weights, &self.biases)
    }

    /// The logits of one sample.
    pub fn logits(&self, x: &[f32]) -> Vec<f32> {
        self.weights.iter().zip(&self.biases).map(|(row, bias)| (dot(row, x) + f64::from(*bias)) as f32).collect()
    }

    /// The least change in `norm` that alters the decision on `x`, bounds left aside; exact for L1, L2 and Linf.
    ///
    /// # Panics
    ///
    /// For L0, which has no closed form without the bounds.
    pub fn least_change(&self, norm: Norm, x: &[f32]) -> f64 {
        assert!(norm != Norm::L0, "L0 has no closed form without the bounds");
        let logits = self.logits(x);
        let flip = |difference: &[f32], distance: f64| distance.abs() / norm.dual(difference);
        match (&self.spec.task, self.spec.task.decide(&logits)) {
            (Task::MultiClass { classes }, Label::Class(label)) => (0..*classes)
                .filter(|&class| class != label)
                .map(|class| self.least_change_to(norm, x, class))
                .fold(f64::INFINITY, f64::min),
            (Task::Binary { threshold }, _) => flip(&self.weights[0], f64::from(logits[0]) - f64::from(*threshold)),
            (Task::MultiLabel { thresholds }, _) => (0..thresholds.len())
                .map(|label| flip(&self.weights[label], f64::from(logits[label]) - f64::from(thresholds[label])))
                .fold(f64::INFINITY, f64::min),
            (task, label) => unreachable!("{task:?} decided {label:?}"),
        }
    }

    /// The least change in `norm` after which `class` beats the class decided on `x` (the two alone), bounds left aside.
    pub fn least_change_to(&self, norm: Norm, x: &[f32], class: usize) -> f64 {
        let logits = self.logits(x);
        let label = nocebo_core::argmax(&logits);
        let difference: Vec<f32> = self.weights[label].iter().zip(&self.weights[class]).map(|(a, b)| a - b).collect();
        let margin = dot(&difference, x) + f64::from(self.biases[label]) - f64::from(self.biases[class]);
        margin.abs() / norm.dual(&difference)
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// A model given by its spec, its logits, and the pull-back of a cotangent on them to the inputs: the traits in one
/// place for all toy models.
fn outputs(spec: &ModelSpec, inputs: &Samples, logits: impl Fn(&[f32]) -> Vec<f32>) -> Result<Outputs, Error> {
    spec.check_shape(inputs)?;
    let values = inputs.rows().flat_map(logits).collect();
    Ok(Samples::new(values, &[spec.task.outputs()])?.with_indices(inputs.indices().to_vec())?.into())
}

fn gradient(
    outputs: Outputs,
    inputs: &Samples,
    objective: &dyn Objective,
    pull_back: impl Fn(&[f32], &[f32]) -> Vec<f32>,
) -> Result<Gradient, Error> {
    let mut values = Vec::with_capacity(inputs.len());
    let mut slopes = Vec::with_capacity(inputs.values().len());
    for (row, (x, logits)) in inputs.rows().zip(outputs.rows()).enumerate() {
        let mut cotangent = vec![0.0; logits.len()];
        values.push(objective.evaluate(row, logits, &mut cotangent)?);
        slopes.extend(pull_back(x, &cotangent));
    }
    let slopes = Samples::new(slopes, inputs.shape())?.with_indices(inputs.indices().to_vec())?;
    Ok(Gradient { outputs, values, inputs: slopes })
}

impl Model for Linear {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        outputs(&self.spec, inputs, |x| self.logits(x))
    }
}

impl DifferentiableModel for Linear {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        gradient(self.outputs(inputs)?, inputs, objective, |x, cotangent| {
            (0..x.len())
                .map(|element| {
                    let parts =
                        self.weights.iter().zip(cotangent).map(|(row, c)| f64::from(row[element]) * f64::from(*c));
                    parts.sum::<f64>() as f32
                })
                .collect()
        })
    }
}

/// `logits = [r² − ‖x − centre‖², 0]`: class 0 inside a ball. The least L2 change from inside is `r − ‖x − centre‖`.
#[derive(Clone, Debug)]
pub struct Quadratic {
    spec: ModelSpec,
    centre: Vec<f32>,
    radius: f32,
}

impl Quadratic {
    /// Class 0 where the distance to `centre` is below `radius`.
    ///
    /// # Panics
    ///
    /// When the centre does not have the domain's size.
    pub fn new(domain: Domain, centre: Vec<f32>, radius: f32) -> Self {
        assert_eq!(centre.len(), domain.elements());
        let class_names = vec!["inside".to_owned(), "outside".to_owned()];
        Self { spec: ModelSpec { domain, task: Task::MultiClass { classes: 2 }, class_names }, centre, radius }
    }

    /// The least L2 change that alters the decision on `x`, bounds left aside.
    pub fn least_change(&self, x: &[f32]) -> f64 {
        (f64::from(self.radius) - Norm::L2.distance(x, &self.centre)).abs()
    }
}

impl Model for Quadratic {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        outputs(&self.spec, inputs, |x| {
            let squared = f64::from(self.radius).powi(2) - Norm::L2.distance(x, &self.centre).powi(2);
            vec![squared as f32, 0.0]
        })
    }
}

impl DifferentiableModel for Quadratic {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        gradient(self.outputs(inputs)?, inputs, objective, |x, cotangent| {
            x.iter().zip(&self.centre).map(|(x, centre)| -2.0 * (x - centre) * cotangent[0]).collect()
        })
    }
}

/// `logits = V·relu(W·x + b) + c`: two layers, any task.
#[derive(Clone, Debug)]
pub struct SmallRelu {
    hidden: Linear,
    head: Linear,
}

impl SmallRelu {
    /// A network from its two layers; the domain and task of `hidden` and `head` are those of the whole.
    ///
    /// # Panics
    ///
    /// When the hidden layer does not have as many outputs as the head has inputs.
    pub fn new(hidden: Linear, head: Linear) -> Self {
        assert_eq!(hidden.weights.len(), head.spec.domain.elements());
        let spec = ModelSpec { domain: hidden.spec.domain.clone(), ..head.spec.clone() };
        Self { hidden, head: Linear { spec, ..head } }
    }

    /// Weights and biases of the hidden layer and of the head.
    pub fn layers(&self) -> [(&[Vec<f32>], &[f32]); 2] {
        [self.hidden.layer(), self.head.layer()]
    }
}

impl Model for SmallRelu {
    fn spec(&self) -> &ModelSpec {
        &self.head.spec
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        outputs(&self.head.spec, inputs, |x| {
            let hidden: Vec<f32> = self.hidden.logits(x).into_iter().map(|unit| unit.max(0.0)).collect();
            self.head.logits(&hidden)
        })
    }
}

impl DifferentiableModel for SmallRelu {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        gradient(self.outputs(inputs)?, inputs, objective, |x, cotangent| {
            let active: Vec<bool> = self.hidden.logits(x).iter().map(|unit| *unit > 0.0).collect();
            let mut slope = vec![0.0; x.len()];
            for (unit, _) in active.iter().enumerate().filter(|(_, active)| **active) {
                let pulled: f32 = self.head.weights.iter().zip(cotangent).map(|(row, c)| row[unit] * c).sum();
                for (slope, weight) in slope.iter_mut().zip(&self.hidden.weights[unit]) {
                    *slope += pulled * weight;
                }
            }
            slope
        })
    }
}

/// The same logits for every input, so a gradient of exactly zero; NaN to stand for a broken network.
#[derive(Clone, Debug)]
pub struct Constant {
    spec: ModelSpec,
    logits: Vec<f32>,
}

impl Constant {
    /// A classifier over the domain with one class a logit.
    pub fn new(domain: Domain, logits: Vec<f32>) -> Self {
        let class_names = (0..logits.len()).map(|class| format!("class {class}")).collect();
        Self { spec: ModelSpec { domain, task: Task::MultiClass { classes: logits.len() }, class_names }, logits }
    }
}

impl Model for Constant {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        outputs(&self.spec, inputs, |_| self.logits.clone())
    }
}

impl DifferentiableModel for Constant {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        gradient(self.outputs(inputs)?, inputs, objective, |x, _| vec![0.0; x.len()])
    }
}

/// A point that a model was asked about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Index of the sample in the data set.
    pub sample: u64,
    /// The point.
    pub point: Vec<f32>,
    /// What the model answered.
    pub logits: Vec<f32>,
}

/// Another model that remembers every point it was asked about.
pub struct Recorder<'a> {
    model: &'a dyn DifferentiableModel,
    asked: Mutex<Vec<Asked>>,
}

impl<'a> Recorder<'a> {
    /// `model` with an empty memory.
    pub fn new(model: &'a dyn DifferentiableModel) -> Self {
        Self { model, asked: Mutex::default() }
    }

    /// The points so far, in order.
    pub fn into_asked(self) -> Vec<Asked> {
        self.asked.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, inputs: &Samples, outputs: &Outputs) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for ((point, logits), &sample) in inputs.rows().zip(outputs.rows()).zip(inputs.indices()) {
            asked.push(Asked { sample, point: point.to_vec(), logits: logits.to_vec() });
        }
    }
}

impl Model for Recorder<'_> {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        let outputs = self.model.outputs(inputs)?;
        self.note(inputs, &outputs);
        Ok(outputs)
    }
}

impl DifferentiableModel for Recorder<'_> {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, Error> {
        let gradient = self.model.gradient(inputs, objective)?;
        self.note(inputs, &gradient.outputs);
        Ok(gradient)
    }
}
