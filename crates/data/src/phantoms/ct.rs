//! Computed tomography of the chest, with a nodule in a lung as the finding: one slice, or a stack of them, aimed at one lung.
//!
//! Every voxel gets the attenuation of what lies in it, in Hounsfield units: skin, fat and muscle in superellipses, two
//! lungs whose density grows towards the back (gravity), heart, aorta, windpipe or main bronchi, vertebra with canal and
//! processes, ribs cut obliquely, sternum, shoulder blades, and the table. Vessels are trees of capsules in space; a slice
//! shows where it cuts them, as branches and as dots. Edges are shared between neighbouring voxels (partial volume), and
//! the noise lacks its slow part, as that of filtered back-projection does.
//!
//! The nodule is a lobed ball, solid or part-solid, with strands around it. The easiest are 2.3 to 3.8 cm wide and as dense as
//! tissue; the harder, the smaller (0.9 to 1.6 cm at last, little more than the vessels beside it) and the less dense.
//!
//! Written from general radiological knowledge; densities are the usual rounded ones (air -1000, lung -860, fat -100,
//! muscle 50, bone 200 to 900 HU).

use std::f32::consts::{PI, TAU};

use nocebo_core::{Domain, DomainConfig, Error, Field, Unit};
use rand_chacha::ChaCha8Rng;

use super::canvas::{Canvas, outline, smooth_step};
use super::field::{Blob, Waves, mix};
use super::{Drawing, Modality, Order, Storage, chance, factor, normal, uniform};

/// Width and height of the picture in cm: of the whole chest, and of one lung.
const FIELD: f32 = 36.0;
const LUNG_FIELD: f32 = 20.0;
/// Slices of a stack, and cm between them.
const SLICES: usize = 12;
const SPACING: f32 = 0.5;
const CLASSES: &[&str] = &["normal", "nodule"];

pub(super) const SLICE: Modality = Modality {
    name: "ct-slice",
    about: "chest CT slice in HU, with a nodule in a lung",
    classes: CLASSES,
    size: 64,
    difficulty: 0.2,
    storage: Storage::Dicom { modality: "CT", window: [-500.0, 1500.0], field: Some(FIELD) },
    domain: |size| hounsfield(&[1, size, size]),
    draw: |order| draw(order, 1, FIELD),
};

pub(super) const VOLUME: Modality = Modality {
    name: "ct-volume",
    about: "stack of 12 CT slices through one lung in HU, with a nodule",
    size: 32,
    difficulty: 0.05,
    storage: Storage::Nifti { field: LUNG_FIELD, slices: SPACING },
    domain: |size| hounsfield(&[1, SLICES, size, size]),
    draw: |order| draw(order, SLICES, LUNG_FIELD),
    ..SLICE
};

fn hounsfield(shape: &[usize]) -> Result<Domain, Error> {
    DomainConfig {
        shape: shape.to_vec(),
        unit: Unit::Hounsfield,
        lower: Field::Uniform(-1024.0),
        upper: Field::Uniform(3071.0),
        resolution: Field::Uniform(1.0),
        region: None,
    }
    .try_into()
}

/// A piece of a vessel: both ends (cm) and the radius.
type Capsule = ([f32; 3], [f32; 3], f32);

struct Chest {
    /// Half width and half depth of the body, thickness of the fat.
    body: (f32, f32),
    fat: f32,
    heart: Blob,
    aorta: Blob,
    ribs: Vec<(f32, f32)>,
    bronchi: [Blob; 4],
    texture: Waves,
    wobble: Waves,
    vessels: Vec<Capsule>,
}

impl Chest {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let body = (normal(rng, 16.3, 0.5), normal(rng, 11.2, 0.4));
        let mut ellipse = |x: f32, y: f32, a: f32, b: f32, rough: f32| {
            let size = normal(rng, 1.0, 0.07);
            Blob::new((x, y), (a * size, b * size), rough, rng)
        };
        let heart = ellipse(1.6, -2.6, 5.9, 4.4, 0.03).turned(0.5);
        let aorta = ellipse(2.0, body.1 - 6.3, 1.25, 1.25, 0.01);
        let bronchi = [(-2.9, 1.2, 0.75), (3.1, 1.5, 0.7), (-4.5, 2.4, 0.4), (4.6, 2.6, 0.4)]
            .map(|(x, y, r)| ellipse(x, y, r, 0.8 * r, 0.02));
        let first = uniform(rng, 0.0, 0.35);
        // Ribs leave the slice at a slant, longer ones at the sides.
        let ribs = (0..9)
            .flat_map(|number| {
                let at = 0.32 + first + number as f32 * 0.31 + normal(rng, 0.0, 0.03);
                let half = uniform(rng, 0.06, 0.13) + 0.06 * at.sin();
                [(at, half), (-at - normal(rng, 0.0, 0.03), half)]
            })
            .collect();
        let mut chest = Self {
            body,
            fat: uniform(rng, 0.8, 2.2),
            heart,
            aorta,
            ribs,
            bronchi,
            texture: Waves::new(24, (0.5, 3.0), 0.4, rng),
            wobble: Waves::new(10, (5.0, 14.0), 0.5, rng),
            vessels: Vec::new(),
        };
        for side in [-1.0f32, 1.0] {
            for branch in 0..13 {
                let turn = -1.35 + 2.7 * branch as f32 / 12.0 + normal(rng, 0.0, 0.12);
                let start = [side * 4.3, 1.5 + 0.8 * turn, normal(rng, 0.0, 0.8)];
                let heading = [side * turn.cos(), turn.sin(), normal(rng, 0.0, 0.35)];
                let radius = uniform(rng, 0.2, 0.4);
                chest.grow(start, heading, radius, rng);
            }
        }
        chest
    }

    /// One vessel and its children, whose radii follow Murray's law.
    fn grow(&mut self, start: [f32; 3], heading: [f32; 3], radius: f32, rng: &mut ChaCha8Rng) {
        if radius < 0.05 || self.vessels.len() > 4000 {
            return;
        }
        let length = radius * uniform(rng, 4.0, 8.0) + 0.5;
        let norm = heading.iter().map(|part| part * part).sum::<f32>().sqrt();
        let end: [f32; 3] = std::array::from_fn(|axis| start[axis] + heading[axis] / norm * length);
        self.vessels.push((start, end, radius));
        if self.lung(end[0], end[1]) < 0.1 && radius < 0.22 {
            return;
        }
        let share = uniform(rng, 0.2, 0.5);
        for (share, spread) in [(share, 0.75), (1.0 - share, 0.3)] {
            let turned = heading.map(|part| part / norm + normal(rng, 0.0, spread));
            self.grow(end, turned, radius * share.cbrt() * 0.97, rng);
        }
    }

    /// Depth below the skin in cm.
    fn depth(&self, x: f32, y: f32) -> f32 {
        let (a, b) = self.body;
        let back = 1.0 - 0.05 * smooth_step(1.0 - x.abs() / 3.0) * smooth_step(y / b);
        (1.0 - ((x / a).abs().powf(2.5) + (y / (b * back)).abs().powf(2.5)).powf(0.4)) * b
    }

    /// Depth below the inner side of the chest wall in cm.
    fn cavity(&self, x: f32, y: f32) -> f32 {
        let (a, b) = (self.body.0 - 2.4 - 0.7 * self.fat, self.body.1 - 1.9 - 0.7 * self.fat);
        (1.0 - ((x / a).abs().powf(2.3) + ((y + 0.4) / b).abs().powf(2.3)).powf(1.0 / 2.3)) * b
    }

    /// Depth below the surface of the lungs in cm; negative outside.
    fn lung(&self, x: f32, y: f32) -> f32 {
        // The space between the lungs: narrow in front, wide at the hila, and around the vertebra.
        let spine = 2.6 * smooth_step((y - self.body.1 + 8.0) / 4.0);
        let half = 1.0 + 1.6 * (-(y - 1.0).powi(2) / 10.0).exp() + spine + 0.25 * self.wobble.at(0.0, y);
        let heart = -self.heart.level(x, y) * 4.5;
        let aorta = -self.aorta.level(x, y) * 1.2;
        self.cavity(x, y).min(x.abs() - half).min(heart).min(aorta)
    }

    fn hounsfield(&self, x: f32, y: f32, z: f32) -> f32 {
        let depth = self.depth(x, y);
        let edge = |distance: f32| (distance / 0.1 + 0.5).clamp(0.0, 1.0);
        let (_, b) = self.body;
        if depth < -0.1 {
            // The table: a curved sheet of carbon fibre.
            let sheet = y - b - 0.55 + 0.012 * x * x;
            return if sheet.abs() < 0.13 && x.abs() < 15.0 { -450.0 } else { -1000.0 };
        }
        let fat = self.fat * (0.75 + 0.35 * self.wobble.at(x, y)) * (0.6 + 0.5 * (y / b).abs());
        let muscle = 52.0 + 14.0 * self.texture.at(x, y);
        let mut value = mix(-102.0 + 10.0 * self.texture.at(y, x), muscle, edge(depth - fat.max(0.35)));
        // Fat between the muscles of the back and beside the shoulder blades.
        if self.wobble.at(1.7 * x, 1.7 * y).abs() < 0.12 && self.cavity(x, y) < -0.9 {
            value = value.min(-60.0);
        }
        value = mix(20.0, value, edge(depth - 0.2));
        let mut bone = |level: f32, thickness: f32| {
            // Cortex of about 0.2 cm around spongy bone.
            let distance = level * thickness;
            let inside = mix(620.0, 190.0 + 30.0 * self.texture.at(2.0 * x, 2.0 * y), edge(distance - 0.22));
            value = mix(value, inside, edge(distance));
        };
        let ellipse = |cx: f32, cy: f32, a: f32, c: f32| 1.0 - ((x - cx) / a).hypot((y - cy) / c);
        let back = b - 4.0 - 0.5 * self.fat;
        bone(ellipse(0.0, back - 1.0, 2.1, 1.6), 1.6);
        bone(ellipse(0.0, back + 2.6, 0.4, 1.7), 0.4);
        bone(ellipse(x.signum() * 2.6, back + 1.0 + 0.12 * x.abs(), 2.0, 0.5), 0.5);
        bone(ellipse(0.0, back + 0.8, 1.5, 1.2), 1.2);
        bone(ellipse(0.0, 1.7 + 0.45 * self.fat - b, 1.9, 0.65), 0.65);
        // Shoulder blades.
        let (u, v) = (x.abs() - 9.6, y - (b - 5.0));
        let blade = 1.0 - ((0.8 * u + 0.6 * v) / 3.4).hypot((0.8 * v - 0.6 * u + 0.05 * u * u) / 0.42);
        bone(blade, 0.42);
        let (angle, ring) = (x.atan2(y), self.cavity(x, y) + 0.62);
        let turn = |at: f32| ((angle - at + PI).rem_euclid(TAU) - PI).abs();
        for &(at, half) in &self.ribs {
            bone(1.0 - ((turn(at + 0.04 * z)) / half).hypot(ring / 0.52), 0.52);
        }
        value = mix(value, 22.0, edge(0.75 * ellipse(0.0, back + 1.15, 0.85, 0.75)));
        let cavity = self.cavity(x, y);
        if cavity > 0.0 && value < 130.0 {
            // Between the lungs: fat with organs in it.
            let organs = self.heart.cover(x, y, 0.2).max(self.aorta.cover(x, y, 0.15));
            let central = if (y - back + 1.0).abs() < 3.5 { 35.0 } else { -70.0 };
            value = mix(mix(central, 40.0, smooth_step(self.wobble.at(1.5 * x, 1.5 * y) + 0.8)), 48.0, organs);
        }
        let lung = edge(self.lung(x, y) - 0.05);
        let air = -868.0 + 5.0 * y + 22.0 * self.texture.at3(1.3 * x, 1.3 * y, 1.3 * z);
        value = mix(value, air, lung);
        for bronchus in &self.bronchi {
            let wall = bronchus.level(x, y) * bronchus.radii.1;
            if wall > -0.15 {
                value = mix(mix(value, 10.0, edge(wall + 0.1)), -990.0, edge(wall));
            }
        }
        value
    }
}

/// Share of a point's surroundings (`pixel` wide) inside a capsule.
fn inside((from, to, radius): &Capsule, point: [f32; 3], pixel: f32) -> f32 {
    let along: [f32; 3] = std::array::from_fn(|axis| to[axis] - from[axis]);
    let offset: [f32; 3] = std::array::from_fn(|axis| point[axis] - from[axis]);
    let dot = |a: &[f32; 3], b: &[f32; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let share = (dot(&along, &offset) / dot(&along, &along).max(1e-9)).clamp(0.0, 1.0);
    let apart: [f32; 3] = std::array::from_fn(|axis| offset[axis] - share * along[axis]);
    ((radius - dot(&apart, &apart).sqrt()) / pixel + 0.5).clamp(0.0, 1.0)
}

/// Noise of unit variance without its slow part, as filtered back-projection leaves it.
fn noise(side: usize, field: f32, factor: usize, rng: &mut ChaCha8Rng) -> Canvas {
    let pixel = field / side as f32;
    let mut noise = Canvas::new(side, field, |_, _| normal(rng, 0.0, 1.0));
    let mut slow = noise.clone();
    noise.blur(1.4 * pixel);
    slow.blur(4.0 * pixel);
    noise.values_mut().iter_mut().zip(slow.values()).for_each(|(fine, slow)| *fine -= slow);
    let mut noise = noise.shrink(factor);
    let spread = (noise.values().iter().map(|v| v * v).sum::<f32>() / noise.values().len() as f32).sqrt();
    noise.values_mut().iter_mut().for_each(|value| *value /= spread.max(1e-6));
    noise
}

/// So many slices of a square of `field` cm: around the whole chest, or a smaller one around one of the lungs.
fn draw(order: &Order, slices: usize, field: f32) -> Drawing {
    let rng = &mut order.rng();
    let chest = Chest::draw(rng);
    let factor = factor(order.size, (3.5 * field) as usize);
    let side = order.size * factor;
    let pixel = field / side as f32;
    let whole = field == FIELD;
    let centre = if whole { 0.0 } else { 7.2 * if chance(rng, 0.5) { 1.0 } else { -1.0 } };
    let reach = SPACING * (slices as f32 - 1.0) / 2.0;

    // Somewhere in a lung, away from its surface.
    let ease = 1.0 - order.difficulty;
    let radius = uniform(rng, 0.45 + 0.7 * ease, 0.8 + 1.1 * ease);
    let mut place = (if centre < 0.0 { -8.0 } else { 8.0 }, 0.0);
    for _ in 0..200 {
        let tried = (uniform(rng, -13.0, 13.0), uniform(rng, -9.0, 9.0));
        let seen = whole || tried.0 * centre > 0.0 && tried.1.abs() < 0.5 * field - 2.0;
        if chest.lung(tried.0, tried.1) > radius + 0.4 && tried.0.abs() > 5.0 && seen {
            place = tried;
            break;
        }
    }
    let height = uniform(rng, -1.0, 1.0) * (reach - 0.8).max(0.0);
    let nodule = Blob::new(place, (radius, radius * uniform(rng, 0.8, 1.0)), 0.06, rng);
    let density = if chance(rng, 0.3) { uniform(rng, -450.0, -250.0) } else { uniform(rng, -120.0, 50.0) };
    let density = mix(density, -550.0, 0.45 * order.difficulty * uniform(rng, 0.0, 1.0));
    let mut tails = Vec::new();
    for _ in 0..6 {
        let turn = uniform(rng, 0.0, TAU);
        let long = radius * uniform(rng, 1.2, 1.9);
        let end = [place.0 + long * turn.cos(), place.1 + long * turn.sin(), height + normal(rng, 0.0, 0.3)];
        tails.push(([place.0, place.1, height], end, 0.06));
    }

    let (mut values, mut covered) = (Vec::new(), Vec::new());
    // Fine enough for the smallest nodule, however small the picture.
    let fine = factor.max(128usize.div_ceil(order.size));
    let (angle, shift) = (normal(rng, 0.0, 0.04), (normal(rng, 0.0, 0.5), normal(rng, 0.0, 0.4)));
    let (sine, cosine) = angle.sin_cos();
    let noise_level = uniform(rng, 18.0, 34.0);
    for slice in 0..slices {
        let z = slice as f32 * SPACING - reach;
        let near: Vec<&Capsule> = (chest.vessels.iter())
            .filter(|(from, to, radius)| {
                let (low, high) = (from[2].min(to[2]) - radius - 0.1, from[2].max(to[2]) + radius + 0.1);
                (low..=high).contains(&z)
            })
            .collect();
        let to_chest = |x: f32, y: f32| {
            let (u, v) = (x + centre - 0.5 * field - shift.0, y - 0.5 * field + 0.6 - shift.1);
            (cosine * u + sine * v, cosine * v - sine * u)
        };
        // Vessels sorted into columns, so that a pixel asks only its neighbours.
        let column = |x: f32| ((x + FIELD / 2.0).max(0.0) as usize).min(FIELD as usize - 1);
        let mut columns = vec![Vec::new(); FIELD as usize];
        for vessel in near {
            let (from, to, radius) = vessel;
            let (low, high) = (from[0].min(to[0]) - radius - pixel, from[0].max(to[0]) + radius + pixel);
            columns[column(low)..=column(high)].iter_mut().for_each(|list| list.push(vessel));
        }
        let cut = (1.0 - ((z - height) / radius).powi(2)).max(0.0).sqrt();
        let cover = |x: f32, y: f32| {
            if cut < 0.3 || order.class == 0 {
                0.0
            } else {
                smooth_step(((nodule.level(x, y) - 1.0 + cut) * radius / 0.16).clamp(0.0, 1.0))
            }
        };
        let tissue = Canvas::new(side, field, |x, y| {
            let (x, y) = to_chest(x, y);
            let mut value = chest.hounsfield(x, y, z);
            if chest.lung(x, y) > -0.3 {
                let blood =
                    columns[column(x)].iter().map(|vessel| inside(vessel, [x, y, z], pixel)).fold(0.0, f32::max);
                value = mix(value, value.max(45.0), blood);
                if order.class == 1 && (x - place.0).hypot(y - place.1) < 3.0 * radius {
                    let tail = tails.iter().map(|tail| inside(tail, [x, y, z], pixel)).fold(0.0, f32::max);
                    value = mix(value, value.max(-300.0), tail);
                }
            }
            mix(value, value.max(density), cover(x, y))
        });
        let mut seen = tissue;
        seen.blur(0.05);
        let shown = seen.shrink(factor);
        let share = Canvas::new(order.size * fine, field, |x, y| {
            let (x, y) = to_chest(x, y);
            cover(x, y)
        });
        covered.extend_from_slice(share.shrink(fine).values());
        let noise = noise(side, field, factor, rng);
        values.extend(shown.values().iter().zip(noise.values()).map(|(value, noise)| value + noise_level * noise));
    }
    Drawing { values, mask: outline(&covered, 0.4) }
}
