//! Mammograms (mediolateral oblique view), with a mass as the finding.
//!
//! A breast compressed to a few cm is fat and gland of random texture; its picture is their attenuation along the beam:
//!
//! ```text
//! A(x, y) = thickness(x, y) · (μ(fat) + gland share(x, y) · (μ(gland) - μ(fat))) + mass + calcium
//! I = N / N₀,  N ~ Poisson(N₀ exp(-A)),  level = window(-ln I)                  12 bits
//! ```
//!
//! The gland share is a sum of waves whose power falls with about the third power of the frequency, which is what
//! mammograms have; it is denser in a cone towards the nipple, with ducts, Cooper's ligaments and vessels as lines. The pectoral
//! muscle lies in the upper corner. The mass is dense, lobed and spiculated, in every second case with small calcifications. The harder,
//! the denser and patchier all breasts, and the smaller and fainter the masses: dense gland hides them, as it does in screening.
//!
//! Sources: power law: Burgess et al., Med. Phys. 28, 2001; attenuation of fat and gland near 20 keV, rounded, after Johns and Yaffe,
//! Phys. Med. Biol. 32, 1987.

use std::f32::consts::TAU;

use nocebo_core::Domain;
use rand_chacha::ChaCha8Rng;

use super::canvas::{Canvas, Node, outline, round_edge, smooth_step};
use super::field::{Blob, Waves, bell, mix};
use super::{Drawing, Modality, Order, Storage, chance, factor, normal, uniform};

/// Width and height of the picture, thickness of the compressed breast, in cm.
const FIELD: f32 = 16.0;
const THICKNESS: f32 = 4.5;
/// Attenuation of fat and gland in 1/cm.
const FAT: f32 = 0.46;
const GLAND: f32 = 0.80;
/// Quanta a square centimetre that reach the detector without a breast.
const QUANTA: f32 = 4.0e5;

pub(super) const MODALITY: Modality = Modality {
    name: "mammogram",
    about: "mammogram, with a spiculated mass",
    classes: &["normal", "mass"],
    size: 64,
    difficulty: 0.3,
    storage: Storage::Dicom { modality: "MG", window: [2047.5, 4095.0], field: Some(FIELD) },
    domain: |size| Domain::grey_levels(&[1, size, size], 4095.0),
    draw,
};

/// Ducts, ligaments and vessels, and the spicules of a mass (place, radius, ease), as lengths of dense tissue.
fn lines(
    side: usize,
    nipple: (f32, f32),
    middle: f32,
    mass: Option<((f32, f32), f32, f32)>,
    rng: &mut ChaCha8Rng,
) -> Canvas {
    let mut lines = Canvas::new(side, FIELD, |_, _| 0.0);
    let mut draw_line = |from: (f32, f32), heading: f32, length: f32, radius: f32, weight: f32, rng: &mut _| {
        let (mut x, mut y, mut heading) = (from.0, from.1, heading);
        let nodes: Vec<Node> = (0..=20)
            .map(|step| {
                heading += normal(rng, 0.0, 0.06);
                x += heading.cos() * length / 20.0;
                y += heading.sin() * length / 20.0;
                Node { x, y, radius: radius * (1.0 - 0.04 * step as f32), weight }
            })
            .collect();
        lines.add_tube(&nodes, |d| 2.0 * (1.0 - d * d).sqrt());
    };
    for _ in 0..26 {
        let (heading, size) = (std::f32::consts::PI + normal(rng, 0.0, 0.5), uniform(rng, 0.04, 0.12));
        let start = (nipple.0 - uniform(rng, 0.5, 3.5), nipple.1 + normal(rng, 0.0, 0.8));
        let length = uniform(rng, 2.5, 6.5);
        draw_line(start, heading, length, size, 0.5, rng);
    }
    for _ in 0..3 {
        let (start, heading) =
            ((uniform(rng, 0.0, 3.0), uniform(rng, middle - 5.0, middle + 5.0)), normal(rng, 0.0, 0.5));
        draw_line(start, heading, uniform(rng, 4.0, 7.0), uniform(rng, 0.08, 0.13), 0.9, rng);
    }
    if let Some((place, radius, ease)) = mass {
        for _ in 0..uniform(rng, 9.0, 18.0) as usize {
            let (heading, length) = (uniform(rng, 0.0, TAU), radius * uniform(rng, 1.3, 2.6));
            draw_line(place, heading, length, uniform(rng, 0.05, 0.10), 0.4 + 0.6 * ease, rng);
        }
    }
    lines
}

/// Calcium in small grains around a mass.
fn grains(side: usize, place: (f32, f32), radius: f32, rng: &mut ChaCha8Rng) -> Canvas {
    let mut grains = Canvas::new(side, FIELD, |_, _| 0.0);
    for _ in 0..uniform(rng, 5.0, 16.0) as usize {
        let (x, y) = (normal(rng, place.0, 0.6 * radius), normal(rng, place.1, 0.6 * radius));
        let (radius, weight) = (uniform(rng, 0.02, 0.05), 8.0);
        grains.add_tube(&[Node { x, y, radius, weight }, Node { x: x + 0.03, y, radius, weight }], |d| 1.0 - d);
    }
    grains
}

fn draw(order: &Order) -> Drawing {
    let rng = &mut order.rng();
    let factor = factor(order.size, 192);
    let side = order.size * factor;
    let pixel = FIELD / side as f32;
    // The chest wall is at x = 0, the nipple points right; half of the pictures are mirrored.
    let mirrored = chance(rng, 0.5);
    let (wide, high) = (normal(rng, 9.5, 1.0), normal(rng, 6.9, 0.4));
    let middle = FIELD * 0.53 + normal(rng, 0.0, 0.4);
    let droop = uniform(rng, 0.0, 1.4);
    let nipple = (wide, middle + droop);
    let ease = 1.0 - order.difficulty;
    let clouds = Waves::new(70, (0.35, 9.0), 0.8, rng);
    let coarse = Waves::new(10, (4.0, 10.0), 0.3, rng);
    let strands = Waves::new(30, (1.2, 3.5), 0.3, rng);
    // Density of the breast (a to d of BI-RADS) and how patchy it is.
    let (dense, patchy) = (uniform(rng, 0.1, 0.25 + 0.45 * order.difficulty), mix(0.22, 0.5, order.difficulty));
    let pectoral = (uniform(rng, 4.0, 6.0), uniform(rng, 8.5, 12.0));

    // Depth below the skin line.
    let depth = |x: f32, y: f32| {
        let lowered = y - middle - droop * (x / wide).powi(2);
        let tall = if lowered > 0.0 { high * 0.95 } else { high * 1.15 };
        let across = (x / wide).abs().powf(2.2) + (lowered / tall).abs().powf(2.0);
        (1.0 - across.powf(0.47)) * wide.min(high)
    };
    let cone = |x: f32, y: f32| {
        let share = (x / nipple.0).clamp(0.0, 1.0);
        let across = (y - mix(middle - 1.0, nipple.1, share)) / (high * (0.72 - 0.55 * share));
        (1.0 - across * across).max(0.0) * smooth_step(x / 2.5) * smooth_step((wide - 0.6 - x) / 2.5)
    };

    let radius = uniform(rng, 0.45 + 0.35 * ease, 0.75 + 0.85 * ease);
    let mut place = (4.5, middle);
    for _ in 0..200 {
        let tried = (uniform(rng, 1.5, wide - 1.5), uniform(rng, middle - high + 2.0, middle + high - 2.0));
        if depth(tried.0, tried.1) > radius + 0.8 && tried.0 / pectoral.0 + tried.1 / pectoral.1 > 1.15 {
            place = tried;
            break;
        }
    }
    let mass = Blob::new(place, (radius, radius * uniform(rng, 0.75, 1.0)), 0.08, rng);
    let amount = radius * uniform(rng, 0.5 + 0.3 * ease, 0.85 + 0.55 * ease);
    let edge = uniform(rng, 0.5, 0.9);

    let lines = lines(side, nipple, middle, (order.class == 1).then_some((place, radius, ease)), rng);
    let calcified = order.class == 1 && chance(rng, 0.5);
    let grains = calcified.then(|| grains(side, place, radius, rng));

    let body = Canvas::new(side, FIELD, |x, y| {
        let depth = depth(x, y);
        if depth <= 0.0 {
            return 0.0;
        }
        let thickness = THICKNESS * round_edge(depth / 2.2);
        // Fibres of the gland run between islands of fat, below which the skin has a rim of fat.
        let cone = cone(x, y) * smooth_step((depth - 0.7 - 0.25 * coarse.at(y, x)) / 1.2);
        let threads = bell(strands.at(x, y) / 0.22) * 0.16;
        let share =
            cone * (1.35 * dense + patchy * clouds.at(x, y) + 0.16 * coarse.at(x, y)) + threads * (0.35 + 0.65 * cone);
        let share = smooth_step(0.12 + 0.62 * share) * 1.05;
        let mut length = thickness * (FAT + (GLAND - FAT) * share);
        length += 0.13 * bell((depth - 0.12) / 0.10);
        // The muscle thickens towards the corner.
        let muscle = 1.0 - x / pectoral.0 - (y - 0.15 * x + 0.2 * strands.at(y, 0.0)) / pectoral.1;
        length += thickness
            * (GLAND - FAT)
            * 0.85
            * smooth_step(muscle / 0.09)
            * (0.85 + 0.4 * muscle)
            * (1.0 - 0.75 * share);
        let tip = 1.0 - ((x - nipple.0 - 0.05) / 0.5).hypot((y - nipple.1) / 0.45);
        length += 0.5 * smooth_step(tip * 3.0);
        if order.class == 1 {
            length += (GLAND - FAT) * 2.4 * amount * smooth_step(mass.level(x, y) / edge + 0.35);
        }
        length
    });
    let (window, dose) = ((normal(rng, 0.9, 0.05), normal(rng, 3.65, 0.1)), normal(rng, 0.0, 0.2).exp());
    let mut attenuation = body;
    for (at, (value, line)) in attenuation.values_mut().iter_mut().zip(lines.values()).enumerate() {
        if *value > 0.0 {
            *value += (GLAND - FAT) * line + grains.as_ref().map_or(0.0, |grains| 1.2 * grains.values()[at]);
        }
    }
    attenuation.blur(0.04);
    let small = attenuation.shrink(factor);
    let quanta = QUANTA * dose * (pixel * factor as f32).powi(2);
    let level = |value: f32, rng: &mut _| {
        let mean = quanta * (-value).exp();
        let counted = normal(rng, mean, mean.sqrt()).max(1.0);
        let shown = ((-(counted / quanta).ln() - window.0) / (window.1 - window.0)).max(0.0);
        4095.0 * shown.powf(1.25)
    };
    let values: Vec<f32> = small.values().iter().map(|&value| level(value, rng)).collect();
    let cover = Canvas::new(side, FIELD, |x, y| f32::from(order.class == 1) * mass.cover(x, y, pixel)).shrink(factor);
    let mask: Vec<bool> = outline(cover.values(), 0.5);
    let turned =
        |at: usize| if mirrored { at / order.size * order.size + order.size - 1 - at % order.size } else { at };
    Drawing {
        values: (0..values.len()).map(|at| values[turned(at)]).collect(),
        mask: (0..mask.len()).map(|at| mask[turned(at)]).collect(),
    }
}
