//! Frontal chest radiographs, with opacities as the finding.
//!
//! The picture is computed as it arises: lengths of tissue, lung and bone along parallel beams, attenuation by
//! Beer's law, scatter, quantum noise, and the logarithmic grey scale of a radiograph (bone white, air black).
//!
//! ```text
//! A(x, y) = Σ μₘ · lengthₘ(x, y)                m: soft tissue, lung, bone
//! P = exp(-A),  S = fraction · (P ∗ wide bell)  primary and scattered radiation
//! I = N / N₀,   N ~ Poisson(N₀ (P + S))         normal approximation, N₀ quanta a pixel
//! grey = window(-ln I)                          0 to 255, whole numbers
//! ```
//!
//! Anatomy: body outline with neck and shoulders, two lungs over domed diaphragms, heart, mediastinum with aortic knob,
//! windpipe and main bronchi, branching vessels, ribs as tilted rings, collar bones, shoulder blades, spine, stomach
//! bubble, breast shadows. Sizes are those of adults, varied from patient to patient; position, tilt, depth of breath,
//! exposure and noise vary from picture to picture.
//!
//! The finding (class 1) is one to three soft, mottled opacities in a lung: alveoli filled with fluid. Their contrast
//! varies, so that the faintest disappear among vessels, ribs and the uneven background; `difficulty` moves the whole
//! range.
//!
//! Written from general radiological knowledge, not from a paper; attenuation coefficients are rounded values of water,
//! inflated lung and bone near 60 keV.

use std::f32::consts::{FRAC_PI_2, PI};
use std::ops::Range;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use nocebo_core::{Domain, Label, Samples, Seed};

use super::canvas::{Canvas, Node, outline, round_edge, smooth_step};
use super::{Drawing, Modality, Order, Storage, chance, normal, uniform};
use crate::{DataError, Dataset};

/// Width and height of the picture in cm.
const FIELD: f32 = 32.0;
/// Attenuation of soft tissue in 1/cm.
const TISSUE: f32 = 0.205;
/// Attenuation of inflated lung in 1/cm.
const LUNG: f32 = 0.048;
/// Attenuation of bone beyond that of the soft tissue it replaces, in 1/cm.
const BONE: f32 = 0.30;
/// Scattered radiation that passes the grid, as a share of the blurred primary radiation.
const SCATTER: f32 = 0.35;
/// Width of the scatter in cm.
const SCATTER_WIDTH: f32 = 3.5;
/// Quanta for each square centimetre without a patient.
const QUANTA: f32 = 6.0e6;
/// Pictures are computed with at least this many pixels a side.
const FINEST_SIDE: usize = 112;

pub(super) const MODALITY: Modality = Modality {
    name: "chest-xray",
    about: "frontal chest radiograph, with opacities in the lungs",
    classes: &ChestXray::CLASS_NAMES,
    size: 64,
    difficulty: 0.2,
    storage: Storage::Dicom { modality: "CR", window: [127.5, 255.0], field: Some(FIELD) },
    domain: |size| Domain::grey_levels(&[1, size, size], 255.0),
    draw,
};

fn draw(order: &Order) -> Drawing {
    let (size, difficulty, prevalence) = (order.size, order.difficulty, order.class as f32);
    let phantom = ChestXray(ChestXrayConfig { size, difficulty, prevalence, pictures_per_patient: 1 });
    let ChestXraySample { pixels, mask, .. } = phantom.sample(order.seed, order.index);
    Drawing { values: pixels, mask }
}

/// Settings of [`ChestXray`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChestXrayConfig {
    /// Pixels a side, 16 to 1024.
    pub size: usize,
    /// How hard the finding is to see, above 0 and at most 1. Three convolution layers trained on 3000 pictures of 28
    /// pixels decide 0.94 of fresh ones right at 0.2 and 0.91 at 0.5; a linear model 0.74 at 0.5.
    pub difficulty: f32,
    /// Share of pictures with the finding, 0 to 1.
    pub prevalence: f32,
    /// Consecutive pictures of one patient, at least 1.
    pub pictures_per_patient: u64,
}

impl Default for ChestXrayConfig {
    /// Chosen here: 28 pixels as in MedMNIST, half of the pictures with the finding, two pictures a patient.
    fn default() -> Self {
        Self { size: 28, difficulty: 0.5, prevalence: 0.5, pictures_per_patient: 2 }
    }
}

/// Generator of chest radiographs; holds only settings that have been checked.
///
/// ```
/// # use nocebo_core::Seed;
/// # use nocebo_data::phantoms::{ChestXray, ChestXrayConfig};
/// let phantom = ChestXray::try_from(ChestXrayConfig::default())?;
/// let train = phantom.dataset(Seed(1), 0..4)?;
/// let test = phantom.dataset(Seed(1), 4..6)?;
/// assert_eq!((train.len(), test.samples().shape()), (4, [1, 28, 28].as_slice()));
/// # Ok::<(), nocebo_data::DataError>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ChestXrayConfig")]
pub struct ChestXray(ChestXrayConfig);

impl TryFrom<ChestXrayConfig> for ChestXray {
    type Error = DataError;

    fn try_from(config: ChestXrayConfig) -> Result<Self, DataError> {
        let invalid = |field, must_be, got| Err(DataError::InvalidOption { field, must_be, got });
        if !(16..=1024).contains(&config.size) {
            return invalid("size", "16 to 1024", config.size.to_string());
        }
        if !(config.difficulty > 0.0 && config.difficulty <= 1.0) {
            return invalid("difficulty", "above 0 and at most 1", config.difficulty.to_string());
        }
        if !(0.0..=1.0).contains(&config.prevalence) {
            return invalid("prevalence", "0 to 1", config.prevalence.to_string());
        }
        if config.pictures_per_patient == 0 {
            return invalid("pictures_per_patient", "at least 1", "0".to_owned());
        }
        Ok(Self(config))
    }
}

/// One chest radiograph.
#[derive(Clone, Debug, PartialEq)]
pub struct ChestXraySample {
    /// Grey levels `[height, width]`, whole numbers from 0 to 255.
    pub pixels: Vec<f32>,
    /// Whether there is an opacity.
    pub finding: bool,
    /// Pixels that belong to an opacity, `[height, width]`; all `false` without one.
    pub mask: Vec<bool>,
    /// Number of the patient.
    pub patient: u64,
}

impl ChestXray {
    /// Names of the two classes.
    pub const CLASS_NAMES: [&str; 2] = ["normal", "opacity"];

    /// The picture number `index` of the endless series that belongs to `seed`.
    ///
    /// Anatomy depends on (seed, patient), everything else on (seed, index).
    pub fn sample(&self, seed: Seed, index: u64) -> ChestXraySample {
        let config = &self.0;
        let patient = index / config.pictures_per_patient;
        let anatomy = Anatomy::draw(&mut seed.named("chest x-ray anatomy").for_sample(patient));
        let mut rng = seed.named("chest x-ray picture").for_sample(index);
        let finding = chance(&mut rng, config.prevalence);
        let factor = FINEST_SIDE.div_ceil(config.size);
        let scene = Scene { anatomy, view: View::draw(&mut rng), side: config.size * factor };
        let (attenuation, opacity) = scene.attenuation(finding, config.difficulty, &mut rng);
        let pixels = expose(&attenuation, factor, &mut rng);
        let mask = outline(opacity.shrink(factor).values(), 0.5);
        ChestXraySample { pixels, finding, mask, patient }
    }

    /// The pictures of a range of indices as a data set `[1, size, size]` of grey levels, with patient keys.
    ///
    /// Ranges that begin and end at multiples of `pictures_per_patient` share no patient.
    ///
    /// # Errors
    ///
    /// When the range is empty.
    pub fn dataset(&self, seed: Seed, indices: Range<u64>) -> Result<Dataset, DataError> {
        let size = self.0.size;
        let source = format!("chest X-ray phantoms {} to {}, seed {}", indices.start, indices.end, seed.0);
        let numbers: Vec<u64> = indices.collect();
        let pictures: Vec<ChestXraySample> = numbers.par_iter().map(|&index| self.sample(seed, index)).collect();
        let labels = pictures.iter().map(|picture| Label::Class(usize::from(picture.finding))).collect();
        let patients = pictures.iter().map(|picture| format!("phantom-{}", picture.patient)).collect();
        let values = pictures.into_iter().flat_map(|picture| picture.pixels).collect();
        let shape = [1, size, size];
        let samples = Samples::new(values, &shape)?.with_indices(numbers)?;
        let class_names = Self::CLASS_NAMES.map(str::to_owned).to_vec();
        Dataset::new(source, samples, labels, class_names, Domain::grey_levels(&shape, 255.0)?)?.with_patients(patients)
    }
}

/// What belongs to a patient. Lengths in cm; `x` from the midline, positive on the patient's left (right in the
/// picture), `y` down from the top of the picture.
struct Anatomy {
    /// Relative width of the whole body.
    width: f32,
    /// Greatest thickness of the chest along the beam.
    depth: f32,
    /// Half width of the chest cavity at its widest.
    cavity: f32,
    apex: f32,
    /// Relative size of the heart.
    heart: f32,
    /// Half width of the great vessels' shadow.
    mediastinum: f32,
    aortic_knob: f32,
    /// Relative thickness and mineral content of bone.
    bone: f32,
    rib_spacing: f32,
    rib_drop: f32,
    /// Thickness of the breasts.
    breast: f32,
    vessels: Vec<Vec<Node>>,
}

/// What belongs to a picture.
struct View {
    angle: f32,
    zoom: f32,
    shift: (f32, f32),
    /// Height of the right and left dome of the diaphragm.
    domes: [f32; 2],
    /// Turn of the body, as a sideward shift of what lies in front, in cm.
    rotation: f32,
    stomach_bubble: bool,
}

impl View {
    fn draw(rng: &mut impl Rng) -> Self {
        let breath = normal(rng, 0.0, 0.8);
        Self {
            angle: normal(rng, 0.0, 0.025),
            zoom: normal(rng, 1.0, 0.03),
            shift: (normal(rng, 0.0, 0.5), normal(rng, 0.0, 0.6)),
            domes: [25.0 + breath, 26.2 + breath + normal(rng, 0.0, 0.3)],
            rotation: normal(rng, 0.0, 0.4),
            stomach_bubble: chance(rng, 0.6),
        }
    }

    /// From the picture (cm from the top left corner) to the patient.
    fn to_patient(&self, x: f32, y: f32) -> (f32, f32) {
        let (sine, cosine) = self.angle.sin_cos();
        let (u, v) = ((x - FIELD / 2.0 - self.shift.0) / self.zoom, (y - FIELD / 2.0 - self.shift.1) / self.zoom);
        (cosine * u + sine * v, cosine * v - sine * u + FIELD / 2.0)
    }

    /// From the patient to the picture.
    fn to_picture(&self, node: Node) -> Node {
        let (sine, cosine) = self.angle.sin_cos();
        let (u, v) = (node.x, node.y - FIELD / 2.0);
        Node {
            x: (cosine * u - sine * v) * self.zoom + FIELD / 2.0 + self.shift.0,
            y: (sine * u + cosine * v) * self.zoom + FIELD / 2.0 + self.shift.1,
            radius: node.radius * self.zoom,
            weight: node.weight,
        }
    }
}

impl Anatomy {
    fn draw(rng: &mut impl Rng) -> Self {
        let width = normal(rng, 1.0, 0.05);
        let mut anatomy = Self {
            width,
            depth: normal(rng, 20.0, 1.6),
            cavity: 13.3 * width,
            apex: normal(rng, 4.6, 0.4),
            heart: normal(rng, 1.0, 0.08),
            mediastinum: normal(rng, 2.6, 0.25),
            aortic_knob: normal(rng, 1.7, 0.25),
            bone: normal(rng, 1.0, 0.12),
            rib_spacing: normal(rng, 2.45, 0.08),
            rib_drop: normal(rng, 7.5, 0.7),
            breast: if chance(rng, 0.5) { uniform(rng, 0.5, 2.0) } else { 0.0 },
            vessels: Vec::new(),
        };
        anatomy.vessels = anatomy.grow_vessels(rng);
        anatomy
    }

    /// Half width of the body.
    fn outline(&self, y: f32) -> f32 {
        let shoulder = smooth_step((y - 0.5) / 6.5);
        let waist = smooth_step((y - 10.0) / 6.0);
        self.width * (5.8 + 13.5 * shoulder - 3.6 * waist)
    }

    /// Length of the beam in the body.
    fn body(&self, x: f32, y: f32) -> f32 {
        let across = (x / self.outline(y)).abs();
        if across >= 1.0 {
            return 0.0;
        }
        let depth = self.depth * (0.55 + 0.35 * smooth_step((y - 2.0) / 8.0) + 0.1 * smooth_step((y - 22.0) / 6.0));
        depth * (1.0 - across.powf(2.6)).sqrt()
    }

    /// Half width of the chest cavity.
    fn cavity(&self, y: f32) -> f32 {
        let widest = 21.0;
        let above = ((widest - y) / (widest - self.apex)).clamp(0.0, 1.0);
        let below = ((y - widest) / 12.0).max(0.0);
        self.cavity * ((1.0 - above.powf(2.3)).sqrt() - 0.12 * below * below)
    }

    /// Length of the beam in the lungs, before heart and vessels take their place.
    fn lungs(&self, x: f32, y: f32, view: &View) -> f32 {
        let side = usize::from(x > 0.0);
        let lateral = self.cavity(y) - x.abs();
        let medial = x.abs() - 1.3;
        if lateral <= 0.0 || medial <= 0.0 || y <= self.apex {
            return 0.0;
        }
        let dome = self.dome(x, side, view);
        // Behind the dome the lung reaches further down, but thin.
        let above_dome = if y < dome {
            0.16 + 0.84 * round_edge((dome - y) / 5.0).max(0.35)
        } else {
            0.16 * (1.0 - smooth_step((y - dome) / 5.0))
        };
        let thickest = 0.74 * self.depth;
        let apex = 0.35 + 0.65 * smooth_step((y - self.apex) / 8.0);
        thickest * apex * round_edge(lateral / 6.0) * round_edge(medial / 2.5) * above_dome
    }

    /// Height of the diaphragm's outline.
    fn dome(&self, x: f32, side: usize, view: &View) -> f32 {
        let across = ((x.abs() - 0.47 * self.cavity) / (0.56 * self.cavity)).clamp(-0.995, 0.995);
        view.domes[side] + 4.2 * (1.0 - (1.0 - across * across).sqrt())
    }

    /// Length of the beam in heart and great vessels.
    fn heart(&self, x: f32, y: f32, view: &View) -> f32 {
        let size = self.heart;
        let x = x - view.rotation;
        let low = (view.domes[1] - 26.2) * 0.6;
        let body = |cx: f32, cy: f32, a: f32, b: f32, angle: f32, thickness: f32| {
            let (sine, cosine) = angle.sin_cos();
            let (u, v) = (x - cx, y - cy);
            let (p, q) = ((cosine * u + sine * v) / a, (cosine * v - sine * u) / b);
            thickness * (1.0 - p * p - q * q).max(0.0).sqrt()
        };
        let left = body(2.6 * size, 21.6 + low, 6.6 * size, 4.6 * size, 0.55, 11.0);
        let right = body(-1.3, 20.8 + low, 3.4 * size, 4.8 * size, 0.0, 9.0);
        let knob = body(1.9, 11.8, self.aortic_knob, self.aortic_knob * 1.1, 0.0, 5.0);
        let pulmonary = body(2.6, 15.0, 1.9, 2.6, 0.35, 5.5);
        // Narrow above the aortic arch, wider towards the neck and the heart, nowhere straight.
        let wave = 0.22 * (0.55 * y + 3.0 * self.mediastinum).sin();
        let half = self.mediastinum * (0.74 + 0.36 * smooth_step((y - 9.0) / 9.0)) + 1.3 * smooth_step((9.5 - y) / 6.0);
        let across = (x + wave + 0.35).abs() / (half + 0.5 * wave);
        let band = 9.0 * (1.0 - across.powi(3)).max(0.0).sqrt();
        left.max(right).max(knob).max(pulmonary).max(band)
    }

    /// Branching vessels of both lungs, from the hila outwards; radii follow Murray's law.
    fn grow_vessels(&self, rng: &mut impl Rng) -> Vec<Vec<Node>> {
        let mut vessels = Vec::new();
        for side in [-1.0f32, 1.0] {
            let (hilum_x, hilum_y) = (side * 3.0, if side < 0.0 { 16.2 } else { 15.4 });
            for branch in 0..11 {
                // Angles from steeply up to steeply down; the lower lobes have the wider vessels.
                let angle = -1.25 + 2.75 * branch as f32 / 10.0 + normal(rng, 0.0, 0.1);
                let radius = uniform(rng, 0.3, 0.46) * if angle > 0.3 { 1.25 } else { 0.95 };
                let hilum = (hilum_x + side * normal(rng, 0.0, 0.4), hilum_y + 1.2 * angle + normal(rng, 0.0, 0.4));
                self.grow_vessel(hilum, side, angle, radius, rng, &mut vessels);
            }
        }
        vessels
    }

    fn grow_vessel(
        &self,
        start: (f32, f32),
        side: f32,
        angle: f32,
        radius: f32,
        rng: &mut impl Rng,
        vessels: &mut Vec<Vec<Node>>,
    ) {
        if radius < 0.04 {
            return;
        }
        let (mut x, mut y, mut heading, mut width) = (start.0, start.1, angle, radius);
        let mut nodes = vec![Node { x, y, radius: width, weight: 1.0 }];
        let length = radius * uniform(rng, 7.0, 12.0) + 0.4;
        for _ in 0..3 {
            heading += normal(rng, 0.0, 0.08);
            width *= 0.96;
            x += side * heading.cos() * length / 3.0;
            y += heading.sin() * length / 3.0;
            nodes.push(Node { x, y, radius: width, weight: 1.0 });
        }
        vessels.push(nodes);
        if y < self.apex || y > 32.0 || x.abs() > self.cavity(y) {
            return;
        }
        // Two children share the cross section so that the cubes of their radii add up to the parent's.
        let share = uniform(rng, 0.25, 0.6);
        for (share, turn) in [(share, uniform(rng, 0.35, 0.8)), (1.0 - share, -uniform(rng, 0.15, 0.5))] {
            let turn = if chance(rng, 0.5) { turn } else { -turn };
            self.grow_vessel((x, y), side, heading + turn, width * share.cbrt(), rng, vessels);
        }
    }

    /// Ribs as rings tilted forward, drawn from the spine to the cartilage in front; right and left.
    fn ribs(&self, view: &View) -> Vec<Vec<Node>> {
        let mut ribs = Vec::new();
        for number in 0..11 {
            let order = number as f32;
            let spine = 4.0 + self.rib_spacing * order;
            let drop = self.rib_drop * (0.62 + 0.05 * order).min(1.1);
            let lateral = 0.5 + self.cavity((spine + 0.45 * drop).min(24.0)).max(4.2 * self.width);
            let half_depth = 0.38 * self.depth;
            let stop = if number < 7 { 0.82 } else { 0.82 - 0.1 * (order - 6.0) } * PI;
            for side in [-1.0f32, 1.0] {
                let point = |phi: f32| {
                    let back_and_front = view.rotation * -phi.cos();
                    let x = side * (1.5 + (lateral - 1.5) * phi.sin().max(0.0).powf(0.8)) + 0.5 * back_and_front;
                    let arch = -0.8 * (2.0 * phi).sin().max(0.0);
                    (x, spine + arch + drop * (0.5 - 0.5 * phi.cos()), half_depth * phi.cos())
                };
                let steps = 40;
                let nodes = (0..=steps).map(|step| {
                    let phi = 0.04 + (stop - 0.04) * step as f32 / steps as f32;
                    let ((x, y, z), (x2, y2, z2)) = (point(phi), point(phi + 0.01));
                    let (across, along) = ((x2 - x).hypot(y2 - y), (z2 - z).abs());
                    // Where the rib runs along the beam, the beam stays longer in it.
                    let weight = (across.hypot(along) / across.max(1e-6)).min(1.9);
                    let fade = smooth_step((stop - phi) / 0.25);
                    let front = if phi > FRAC_PI_2 { 0.8 } else { 1.0 };
                    Node { x, y, radius: 0.52 + 0.012 * order, weight: weight * fade * front }
                });
                ribs.push(nodes.collect());
            }
        }
        ribs
    }

    fn collar_bones(&self, view: &View) -> Vec<Vec<Node>> {
        [-1.0f32, 1.0]
            .map(|side| {
                let node = |t: f32| Node {
                    x: side * (1.9 + 13.5 * self.width * t) + view.rotation,
                    y: 8.4 - 3.0 * t + 0.7 * (2.0 * PI * t).sin(),
                    radius: 0.62 - 0.12 * (PI * t).sin(),
                    weight: 1.7,
                };
                (0..=24).map(|step| node(step as f32 / 24.0)).collect()
            })
            .to_vec()
    }

    /// Length of the beam in spine, shoulder blades and upper arms.
    fn other_bone(&self, x: f32, y: f32) -> f32 {
        let vertebra = 2.35;
        let phase = (y / vertebra).fract();
        let disc = smooth_step((0.5 - (phase - 0.5).abs()) / 0.12);
        let half = 1.75 - 0.25 * disc;
        let column = 0.6 * disc.mul_add(0.45, 0.55) * round_edge((half - x.abs()) / 0.9);
        let ellipse = |cx: f32, cy: f32, a: f32, b: f32| {
            let (u, v) = ((x.abs() - cx) / a, (y - cy) / b);
            1.0 - u * u - v * v
        };
        let process = 0.5 * smooth_step(3.0 * ellipse(0.0, (y / vertebra).floor() * vertebra + 1.5, 0.35, 0.6));
        let blade = 0.28 * smooth_step(8.0 * ellipse(14.2 * self.width, 11.5, 2.9, 5.6));
        let arm = 1.6 * smooth_step(4.0 * ellipse(18.6 * self.width, 8.5, 2.4, 2.6));
        column + process + blade + arm
    }

    fn breasts(&self, x: f32, y: f32) -> f32 {
        let (u, v) = ((x.abs() - 7.5) / 6.0, (y - 20.5) / 5.5);
        self.breast * (1.0 - u * u - v * v).max(0.0).powf(0.7)
    }
}

struct Scene {
    anatomy: Anatomy,
    view: View,
    side: usize,
}

impl Scene {
    fn canvas(&self, mut value: impl FnMut(f32, f32) -> f32) -> Canvas {
        Canvas::new(self.side, FIELD, |x, y| {
            let (x, y) = self.view.to_patient(x, y);
            value(x, y)
        })
    }

    /// Attenuation along each beam, and where there is an opacity (1) or not (0).
    fn attenuation(&self, finding: bool, difficulty: f32, rng: &mut ChaCha8Rng) -> (Canvas, Canvas) {
        let Self { anatomy, view, side } = self;
        let lungs = self.canvas(|x, y| {
            let lung = anatomy.lungs(x, y, view);
            (lung - anatomy.heart(x, y, view)).max(0.12 * lung)
        });
        let mut bone = self.canvas(|x, y| anatomy.other_bone(x, y));
        for rib in &anatomy.ribs(view) {
            self.add_tube(&mut bone, rib, shell);
        }
        for collar_bone in &anatomy.collar_bones(view) {
            self.add_tube(&mut bone, collar_bone, shell);
        }
        let mut vessels = self.canvas(hilum);
        for vessel in &anatomy.vessels {
            self.add_tube(&mut vessels, vessel, chord);
        }
        // What makes lungs uneven without being a finding: fat, muscle, folds of skin, density of the lung.
        let mut background = Canvas::noise(*side, FIELD, 5.0, rng);
        for (scale, strength) in [(2.5, 0.7), (1.2, 0.35), (0.6, 0.15)] {
            let finer = Canvas::noise(*side, FIELD, scale, rng);
            add_scaled(&mut background, &finer, strength);
        }
        let uneven = 0.1 + 0.36 * difficulty;
        let (opacity, mask) = self.opacity(finding, difficulty, &lungs, rng);

        let mut attenuation = self.canvas(|x, y| {
            let body = anatomy.body(x, y);
            let air = air(x, y, view).min(body);
            TISSUE * (body - air + if body > 0.0 { anatomy.breasts(x, y) } else { 0.0 })
        });
        let parts = lungs.values().iter().zip(bone.values()).zip(vessels.values());
        let soft = background.values().iter().zip(opacity.values());
        for ((value, ((&lung, &bone), &vessel)), (&uneven_here, &opacity)) in
            attenuation.values_mut().iter_mut().zip(parts).zip(soft)
        {
            let inside = (lung / 4.0).min(1.0);
            let filled = (vessel + opacity + uneven * uneven_here * inside).clamp(-0.12 * lung, lung);
            let solid = if *value > 0.0 { BONE * anatomy.bone * bone } else { 0.0 };
            *value = (*value - (TISSUE - LUNG) * (lung - filled) + solid).max(0.0);
        }
        (attenuation, mask)
    }

    fn add_tube(&self, canvas: &mut Canvas, nodes: &[Node], profile: impl Fn(f32) -> f32) {
        let nodes: Vec<Node> = nodes.iter().map(|&node| self.view.to_picture(node)).collect();
        canvas.add_tube(&nodes, profile);
    }

    /// Length of the beam in filled alveoli, and the mask; both 0 without a finding.
    fn opacity(&self, finding: bool, difficulty: f32, lungs: &Canvas, rng: &mut ChaCha8Rng) -> (Canvas, Canvas) {
        let mut shape = Canvas::new(self.side, FIELD, |_, _| 0.0);
        let mut mask = shape.clone();
        if !finding {
            return (shape, mask);
        }
        let (x, y) = self.place_in_lung(rng);
        let extent = uniform(rng, 2.2, 4.4);
        for lump in 0..=(uniform(rng, 0.0, 3.0) as usize).min(2) {
            // The first lies in the lung for certain.
            let stray = if lump == 0 { 0.0 } else { 0.5 * extent };
            let (cx, cy) = (x + normal(rng, 0.0, stray), y + normal(rng, 0.0, stray));
            let (a, b) = (extent * uniform(rng, 0.6, 1.1), extent * uniform(rng, 0.6, 1.1));
            let lump = Canvas::new(self.side, FIELD, |x, y| {
                let distance = ((x - cx) / a).powi(2) + ((y - cy) / b).powi(2);
                (-0.8 * distance.powf(1.4)).exp()
            });
            for (value, lump) in shape.values_mut().iter_mut().zip(lump.values()) {
                *value = 1.0 - (1.0 - *value) * (1.0 - lump);
            }
        }
        let mut mottling = Canvas::noise(self.side, FIELD, 1.4, rng);
        add_scaled(&mut mottling, &Canvas::noise(self.side, FIELD, 0.8, rng), 0.7);
        let contrast = (1.2 - difficulty) * 10.0 * normal(rng, 0.0, 0.35).exp();
        let cells = shape.values_mut().iter_mut().zip(mask.values_mut()).zip(lungs.values()).zip(mottling.values());
        for (((value, mask), &lung), &mottled) in cells {
            *mask = if *value > 0.4 && lung > 2.5 { 1.0 } else { 0.0 };
            *value = (*value * contrast * (1.0 + 0.16 * mottled)).clamp(0.0, 0.85 * lung);
        }
        (shape, mask)
    }

    /// A point, in cm from the corner of the picture, where the beam meets much lung; the same for every size.
    fn place_in_lung(&self, rng: &mut ChaCha8Rng) -> (f32, f32) {
        let Self { anatomy, view, .. } = self;
        for _ in 0..1000 {
            let place = (uniform(rng, 0.0, FIELD), uniform(rng, 0.0, FIELD));
            let (x, y) = view.to_patient(place.0, place.1);
            if anatomy.lungs(x, y, view) - anatomy.heart(x, y, view) > 7.0 {
                return place;
            }
        }
        // Lungs fill a quarter of the picture, so this is out of reach; the middle of the right lung.
        let node = view.to_picture(Node { x: -7.0, y: 16.0, radius: 0.0, weight: 0.0 });
        (node.x, node.y)
    }
}

/// Length of the beam in the air of windpipe, main bronchi and stomach.
fn air(x: f32, y: f32, view: &View) -> f32 {
    let tube = |from: (f32, f32), to: (f32, f32), radius: f32| {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let along = (((x - from.0) * dx + (y - from.1) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
        let (px, py) = (x - from.0 - along * dx, y - from.1 - along * dy);
        2.0 * (radius * radius - px * px - py * py).max(0.0).sqrt()
    };
    let turn = 0.5 * view.rotation;
    let windpipe = tube((turn, -2.0), (turn + 0.2, 13.0), 0.85);
    let right = tube((turn + 0.2, 13.0), (turn - 2.4, 15.6), 0.6);
    let left = tube((turn + 0.2, 13.0), (turn + 3.4, 15.4), 0.55);
    let mut air = windpipe.max(right).max(left);
    if view.stomach_bubble {
        let (u, v) = ((x - 6.5) / 2.6, (y - view.domes[1] - 3.4) / 1.7);
        air += 4.0 * (1.0 - u * u - v * v).max(0.0).sqrt();
    }
    air
}

/// Length of the beam in the vessels of the hilum.
fn hilum(x: f32, y: f32) -> f32 {
    let centre = if x < 0.0 { 16.2 } else { 15.4 };
    let (u, v) = ((x.abs() - 3.3) / 1.3, (y - centre) / 2.2);
    1.8 * (-(u * u + v * v)).exp()
}

/// Chord of a solid round tube of radius 1.
fn chord(distance: f32) -> f32 {
    2.0 * (1.0 - distance * distance).sqrt()
}

/// Chord in the cortex and the spongy core of a bone of radius 1: bright edges.
fn shell(distance: f32) -> f32 {
    let core = 0.78f32;
    chord(distance) - 0.62 * 2.0 * (core * core - distance * distance).max(0.0).sqrt()
}

fn add_scaled(to: &mut Canvas, from: &Canvas, scale: f32) {
    for (value, added) in to.values_mut().iter_mut().zip(from.values()) {
        *value += scale * added;
    }
}

/// From attenuation to the grey levels of the shrunk picture.
fn expose(attenuation: &Canvas, factor: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut primary = attenuation.clone();
    for value in primary.values_mut() {
        *value = (-*value).exp();
    }
    let mut scatter = primary.clone();
    scatter.blur(SCATTER_WIDTH);
    add_scaled(&mut primary, &scatter, SCATTER);
    let signal = primary.shrink(factor);
    let pixel = FIELD / signal.side() as f32;
    // Drawn before the noise, whose numbers depend on the number of pixels.
    let (dose, taste) = (normal(rng, 0.0, 0.3).exp(), [normal(rng, 0.0, 0.08), normal(rng, 0.0, 0.08)]);
    let quanta = QUANTA * pixel * pixel * dose;
    let density: Vec<f32> = signal
        .values()
        .iter()
        .map(|&signal| {
            let counted = normal(rng, quanta * signal, (quanta * signal).sqrt());
            -(counted / quanta).max(1e-6).ln()
        })
        .collect();
    // The window of the viewer: from the darkest to the brightest parts of the patient, with the operator's taste.
    let mut ordered = density.clone();
    ordered.sort_by(f32::total_cmp);
    let share = |part: f32| ordered[(part * (ordered.len() - 1) as f32) as usize];
    let (black, white) = (share(0.2) - 0.35 + taste[0], share(0.97) + 0.1 + taste[1]);
    let shown = |value: f32| {
        let linear = ((value - black) / (white - black)).clamp(0.0, 1.0);
        linear * (1.35 - 0.35 * linear)
    };
    density.iter().map(|&value| (255.0 * shown(value)).round()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phantom(config: ChestXrayConfig) -> ChestXray {
        ChestXray::try_from(config).unwrap()
    }

    fn mean(values: impl Iterator<Item = f32>) -> f32 {
        let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
        sum / count.max(1) as f32
    }

    #[test]
    fn a_sample_depends_on_seed_and_index_only() {
        let phantom = phantom(ChestXrayConfig::default());
        let data = phantom.dataset(Seed(3), 10..16).unwrap();
        assert_eq!(data.samples().indices(), [10, 11, 12, 13, 14, 15]);
        for (row, index) in (10..16).enumerate() {
            let sample = phantom.sample(Seed(3), index);
            assert_eq!(data.samples().row(row), sample.pixels, "{index}");
            assert_eq!(data.labels()[row], Label::Class(usize::from(sample.finding)));
        }
        assert_ne!(phantom.sample(Seed(3), 10).pixels, phantom.sample(Seed(3), 11).pixels);
        assert_ne!(phantom.sample(Seed(3), 10).pixels, phantom.sample(Seed(4), 10).pixels);
        assert_eq!(data.patients().unwrap()[..3], ["phantom-5", "phantom-5", "phantom-6"]);
    }

    #[test]
    fn lungs_are_dark_between_bright_mediastinum_and_abdomen() {
        let phantom = phantom(ChestXrayConfig { prevalence: 0.0, ..ChestXrayConfig::default() });
        for index in 0..6 {
            let sample = phantom.sample(Seed(1), index);
            assert!(!sample.finding && sample.mask.iter().all(|inside| !inside));
            assert!(sample.pixels.iter().all(|value| (0.0..=255.0).contains(value) && value.fract() == 0.0));
            let block = |rows: Range<usize>, columns: Range<usize>| {
                mean(
                    rows.flat_map(|row| columns.clone().map(move |column| row * 28 + column))
                        .map(|at| sample.pixels[at]),
                )
            };
            let lungs = f32::midpoint(block(11..17, 6..10), block(11..15, 20..23));
            assert!(lungs + 60.0 < block(9..16, 13..15), "mediastinum, {index}");
            assert!(lungs + 80.0 < block(25..28, 10..18), "abdomen, {index}");
            assert!(block(0..2, 0..2) < 40.0, "air, {index}");
        }
    }

    #[test]
    fn an_opacity_brightens_its_mask_and_the_more_the_easier_it_is() {
        let draw = |prevalence, difficulty, index| {
            phantom(ChestXrayConfig { difficulty, prevalence, ..ChestXrayConfig::default() }).sample(Seed(2), index)
        };
        let contrast = |difficulty: f32| {
            mean((0..8).map(|index| {
                let (with, without) = (draw(1.0, difficulty, index), draw(0.0, difficulty, index));
                assert!(with.finding && with.mask.iter().any(|&inside| inside), "{index}");
                let inside = |pixels: &[f32]| {
                    mean(pixels.iter().zip(&with.mask).filter(|(_, inside)| **inside).map(|(&value, _)| value))
                };
                inside(&with.pixels) - inside(&without.pixels)
            }))
        };
        let (easy, hard) = (contrast(0.1), contrast(1.0));
        assert!(easy > 30.0 && hard > 3.0 && easy > 2.0 * hard, "{easy} {hard}");
    }

    #[test]
    fn the_same_picture_is_drawn_at_every_size() {
        let draw = |size| phantom(ChestXrayConfig { size, ..ChestXrayConfig::default() }).sample(Seed(5), 1).pixels;
        let (small, large) = (draw(28), draw(56));
        let shrunk: Vec<f32> = (0..28 * 28)
            .map(|at| {
                let corner = (at / 28 * 2) * 56 + at % 28 * 2;
                mean([0, 1, 56, 57].into_iter().map(|offset| large[corner + offset]))
            })
            .collect();
        let difference = mean(small.iter().zip(&shrunk).map(|(a, b)| (a - b).abs()));
        assert!(difference < 4.0, "{difference}");
    }

    #[test]
    fn half_of_the_pictures_have_the_finding() {
        let phantom = phantom(ChestXrayConfig { size: 16, ..ChestXrayConfig::default() });
        let [normal, opacity] = phantom.dataset(Seed(1), 0..40).unwrap().class_counts()[..] else {
            panic!("two classes")
        };
        assert!(normal >= 10 && opacity >= 10, "{normal} {opacity}");
    }

    #[test]
    fn unusable_settings_are_refused() {
        let default = ChestXrayConfig::default;
        for config in [
            ChestXrayConfig { size: 15, ..default() },
            ChestXrayConfig { size: 1025, ..default() },
            ChestXrayConfig { difficulty: 0.0, ..default() },
            ChestXrayConfig { difficulty: f32::NAN, ..default() },
            ChestXrayConfig { prevalence: 1.1, ..default() },
            ChestXrayConfig { pictures_per_patient: 0, ..default() },
        ] {
            assert!(ChestXray::try_from(config.clone()).is_err(), "{config:?}");
        }
        assert!(phantom(default()).dataset(Seed(1), 5..5).is_err());
    }
}
