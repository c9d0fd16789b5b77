//! Optical coherence tomography of the macula, with fluid in or under the retina as the finding.
//!
//! Each column is a line of light into the eye. Layers between the inner surface and the choroid scatter back a share of
//! it, light weakens on its way, vessels throw shadows, and interference gives fully developed speckle:
//!
//! ```text
//! I(x, z) = reflectivity(layer) · exp(-2 ∫ μ dz) · shadow(x) · mean of n exponential numbers + floor
//! grey = window(log I)
//! ```
//!
//! Anatomy: inner limiting membrane with the pit of the fovea, nerve fibres (thicker on the side of the disc), ganglion cells and inner
//! plexiform, inner nuclear (dark), outer plexiform, outer nuclear (dark), ellipsoid zone and pigment epithelium (two bright
//! lines), choroid with vessels. All of it is bent like the eye.
//!
//! The finding: dark cysts in the nuclear layers that thicken the retina, or a dark lens between retina and pigment
//! epithelium that lifts it. The harder, the smaller, and the less empty.
//!
//! Speckle: Goodman's statistics; layers from general knowledge of the retina.

use nocebo_core::Domain;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1};

use super::canvas::{Canvas, outline, smooth_step};
use super::field::{Blob, Waves, bell, mix};
use super::{Drawing, Modality, Order, Storage, chance, factor, normal, uniform};

/// Width (mm along the retina) and height (mm into it) of the picture; depth is stretched threefold.
const FIELD: f32 = 6.0;
const STRETCH: f32 = 3.4;
/// Thickness (mm) and reflectivity of the layers from the inner surface on, away from the fovea.
const LAYERS: [(f32, f32); 8] = [
    (0.030, 0.85), // nerve fibres
    (0.078, 0.42), // ganglion cells, inner plexiform
    (0.036, 0.15), // inner nuclear
    (0.026, 0.40), // outer plexiform
    (0.080, 0.11), // outer nuclear
    (0.012, 0.75), // ellipsoid zone
    (0.026, 0.26), // outer segments
    (0.026, 1.25), // pigment epithelium
];

pub(super) const MODALITY: Modality = Modality {
    name: "oct",
    about: "optical coherence tomography of the macula, with fluid",
    classes: &["normal", "fluid"],
    size: 64,
    difficulty: 0.5,
    storage: Storage::Pictures,
    domain: |size| Domain::grey_levels(&[1, size, size], 255.0),
    draw,
};

struct Retina {
    fovea: f32,
    pit: f32,
    tilt: f32,
    curve: f32,
    level: f32,
    disc: f32,
    thickness: [f32; 8],
    wobble: Waves,
    choroid: Waves,
    /// Lens of fluid: middle, half width, height (mm); cysts, in the stretched picture.
    lens: Option<(f32, f32, f32)>,
    cysts: Vec<Blob>,
    swelling: (f32, f32, f32),
}

impl Retina {
    fn draw(order: &Order, rng: &mut ChaCha8Rng) -> Self {
        let ease = 1.0 - order.difficulty;
        let fovea = FIELD / 2.0 + normal(rng, 0.0, 0.3);
        let mut retina = Self {
            fovea,
            pit: uniform(rng, 0.75, 1.0),
            tilt: normal(rng, 0.0, 0.015),
            curve: normal(rng, 0.006, 0.002),
            level: normal(rng, 1.02, 0.05),
            disc: if chance(rng, 0.5) { 1.0 } else { -1.0 },
            thickness: LAYERS.map(|(thickness, _)| thickness * normal(rng, 1.0, 0.06)),
            wobble: Waves::new(10, (1.0, 4.0), 0.5, rng),
            choroid: Waves::new(24, (0.16, 0.6), 0.4, rng),
            lens: None,
            cysts: Vec::new(),
            swelling: (fovea, 1.0, 0.0),
        };
        let (subretinal, at) = (chance(rng, 0.5), fovea + normal(rng, 0.0, 0.5));
        if order.class == 1 && subretinal {
            retina.lens =
                Some((at, uniform(rng, 0.4, 0.6 + 0.9 * ease), uniform(rng, 0.03 + 0.02 * ease, 0.06 + 0.12 * ease)));
        } else if order.class == 1 {
            retina.swelling = (at, uniform(rng, 0.6, 1.2), uniform(rng, 0.02, 0.06 + 0.12 * ease));
            for _ in 0..(2.0 + uniform(rng, 0.0, 2.0) + 7.0 * ease * uniform(rng, 0.2, 1.0)) as usize {
                let x = at + normal(rng, 0.0, 0.45);
                // In the inner or the outer nuclear layer.
                let share = if chance(rng, 0.5) { 0.42 } else { 0.68 };
                let (surface, bottom) = (retina.surface(x), retina.bottom(x));
                let y = mix(surface, bottom, share) + normal(rng, 0.0, 0.015);
                let radius = uniform(rng, 0.05, 0.08 + 0.13 * ease);
                retina.cysts.push(
                    Blob::new((x, STRETCH * y), (radius, STRETCH * radius * uniform(rng, 0.3, 0.45)), 0.06, rng)
                        .turned(0.0),
                );
            }
        }
        retina
    }

    /// Height of the pigment epithelium's lower side, in mm from the top.
    fn bottom(&self, x: f32) -> f32 {
        let u = x - FIELD / 2.0;
        self.level + self.tilt * u - self.curve * u * u + 0.006 * self.wobble.at(x, 0.0)
    }

    /// Thickness of each layer at `x`, from the inner surface on.
    fn layers(&self, x: f32) -> [f32; 8] {
        let u = x - self.fovea;
        let pit = self.pit * bell(u / 0.34);
        let rim = 0.30 * bell((u.abs() - 0.95) / 0.55);
        let nerve = (1.0 + 0.55 * self.disc * (u / 2.0)).max(0.25);
        let swollen = self.swelling.2 * bell((x - self.swelling.0) / self.swelling.1);
        let mut layers = self.thickness;
        layers[0] *= nerve * (1.0 - bell(u / 0.6)).max(0.05);
        layers[1] *= (1.0 + 1.4 * rim) * (1.0 - 0.97 * pit);
        layers[2] *= (1.0 + 0.8 * rim) * (1.0 - 0.95 * pit);
        layers[3] *= 1.0 - 0.85 * pit;
        layers[4] *= 1.0 + 0.55 * bell(u / 0.45);
        layers[6] *= 1.0 + 0.5 * bell(u / 0.3);
        layers[2] += 0.45 * swollen;
        layers[4] += 0.55 * swollen;
        layers
    }

    /// Height of a lens of fluid at `x`.
    fn lens(&self, x: f32) -> f32 {
        self.lens.map_or(0.0, |(at, half, height)| height * (1.0 - ((x - at) / half).powi(2)).max(0.0).powf(0.8))
    }

    fn surface(&self, x: f32) -> f32 {
        self.bottom(x) - self.lens(x) - self.layers(x).iter().sum::<f32>()
    }
}

fn draw(order: &Order) -> Drawing {
    let rng = &mut order.rng();
    let retina = Retina::draw(order, rng);
    let factor = factor(order.size, 224);
    let side = order.size * factor;
    let step = FIELD / side as f32;
    let vessels: Vec<(f32, f32)> = (0..5)
        .map(|_| (uniform(rng, 0.0, FIELD), uniform(rng, 0.03, 0.08)))
        .filter(|(x, _)| (x - retina.fovea).abs() > 0.8)
        .collect();
    let filling = uniform(rng, 0.0, 0.06) * order.difficulty;
    let (mut intensity, mut mask) = (vec![0.0; side * side], vec![0.0; side * side]);
    for column in 0..side {
        let x = (column as f32 + 0.5) * step;
        let (mut layers, lens, surface) = (retina.layers(x), retina.lens(x), retina.surface(x));
        let epithelium = layers[7];
        layers[7] = lens;
        let shadow: f32 = vessels.iter().map(|(at, width)| 1.0 - 0.6 * bell((x - at) / width)).product();
        let mut light = 1.0f32;
        for row in 0..side {
            let z = (row as f32 + 0.5) * step / STRETCH;
            let mut below = z - surface;
            let (mut value, mut fluid) = (0.006, 0.0);
            if below > 0.0 {
                // Behind all layers: the choroid, with dark vessels, fading.
                let mut found = None;
                for (number, thickness) in layers.iter().chain([&epithelium]).enumerate() {
                    if below < *thickness {
                        found = Some(number);
                        break;
                    }
                    below -= thickness;
                }
                value = match found {
                    Some(7) => {
                        fluid = 1.0;
                        0.012 + filling
                    }
                    Some(8) => LAYERS[7].1,
                    Some(4) if (below - 0.82 * layers[4]).abs() < 0.005 => 0.24,
                    Some(number) => LAYERS[number].1,
                    None => {
                        let vessel = smooth_step(1.2 * retina.choroid.at(x, 2.2 * z) + 0.2);
                        let end = smooth_step((0.30 + 0.03 * retina.wobble.at(x, 1.0) - below) / 0.10);
                        mix(0.05, 0.55 - 0.33 * vessel, end) * (-2.2 * below).exp()
                    }
                };
                let cyst = retina.cysts.iter().map(|cyst| cyst.cover(x, STRETCH * z, 0.03)).fold(0.0, f32::max);
                if found.is_some_and(|number| number < 7) {
                    value = mix(value, 0.012 + filling, cyst);
                    fluid = f32::max(fluid, cyst);
                    let vessel = vessels.iter().map(|(at, width)| bell((x - at) / width)).fold(0.0, f32::max);
                    if z - surface < 0.1 {
                        value = mix(value, 0.8, 0.5 * vessel);
                    }
                }
                light *= (-0.9 * value * step / STRETCH / 0.25).exp();
                value *= light * if z - surface > 0.1 { shadow } else { 1.0 };
            }
            intensity[row * side + column] = value;
            mask[row * side + column] = fluid;
        }
    }
    let mut reflected = Canvas::from_values(side, FIELD, intensity);
    reflected.blur(0.02);
    let looks = uniform(rng, 2.0, 5.0) as usize;
    let (floor, gain) = (uniform(rng, 0.006, 0.012), normal(rng, 1.0, 0.12));
    for value in reflected.values_mut() {
        let mean: f32 = (0..looks).map(|_| -> f32 { Exp1.sample(rng) }).sum::<f32>() / looks as f32;
        let noise: f32 = (0..looks).map(|_| -> f32 { Exp1.sample(rng) }).sum::<f32>() / looks as f32;
        *value = gain * *value * mean + floor * noise;
    }
    let shown = reflected.shrink(factor);
    let (black, white) = (0.007f32.log10(), 0.95f32.log10());
    let values =
        shown.values().iter().map(|value| 255.0 * (value.max(1e-4).log10() - black) / (white - black)).collect();
    let mask = Canvas::from_values(side, FIELD, mask).shrink(factor);
    Drawing { values, mask: outline(mask.values(), 0.5) }
}
