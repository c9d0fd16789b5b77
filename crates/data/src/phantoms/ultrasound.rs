//! B-mode ultrasound of the breast, with a hypoechoic mass as the finding, from simulated radio-frequency echoes.
//!
//! A curved probe sends one line after the other into the tissue, which is a cloud of random point scatterers:
//!
//! ```text
//! rf(d, l) = (s ∗ pulse ∗ beam)(d, l) · exp(-2 ∫ α f) + receiver noise       s: scatterers on depths d and lines l
//! pulse(d) = bell(d) exp(2πi · 2d/λ)                                          its real part is what the probe records
//! grey = 255 (1 + 20 log₁₀(tgc · |rf|) / range)                               envelope, gain, log compression
//! ```
//!
//! The complex pulse gives the envelope at once. The beam widens away from its focus, so speckle is fine near the focus and
//! broad below it; the gain (TGC) undoes a mean attenuation, so that a mass that absorbs more throws a shadow and the receiver's noise
//! rises with depth. At last the lines are put where they belong in the fan.
//!
//! Layers: skin, fat with lobules and bright septa, gland, muscle with fibres, and the ribs' shadow edge. Normal pictures
//! have fat lobules and vessels, which are dark too, but softer, smaller and without a shadow. The harder, the smaller, the
//! less dark and the softer the mass.
//!
//! Source: the convolution model as in Bamber and Dickinson, Phys. Med. Biol. 25, 1980; no code followed.

use std::f32::consts::TAU;

use nocebo_core::Domain;
use rand_chacha::ChaCha8Rng;

use super::canvas::{Canvas, outline, smooth_step};
use super::field::{Blob, Waves, bell, mix};
use super::{Drawing, Modality, Order, Storage, factor, normal, uniform};

/// Width and height of the picture, and depth that is looked at, in cm.
const FIELD: f32 = 5.2;
const DEPTH: f32 = 4.6;
/// Radius of the probe's face in cm, and half the angle of the fan.
const PROBE: f32 = 4.0;
const HALF_ANGLE: f32 = 0.33;
/// Wavelength in cm (7 MHz at 1540 m/s), and echo samples a cm.
const WAVELENGTH: f32 = 0.022;
const RATE: f32 = 420.0;
const LINES: usize = 128;
/// Attenuation of soft tissue there and back, in nepers a cm: 0.7 dB/(cm MHz).
const ATTENUATION: f32 = 2.0 * 0.7 * 7.0 / 8.686;
/// Decibels between black and white.
const RANGE: f32 = 58.0;

pub(super) const MODALITY: Modality = Modality {
    name: "ultrasound",
    about: "breast ultrasound from simulated echoes, with a hypoechoic mass",
    classes: &["normal", "mass"],
    size: 64,
    difficulty: 0.5,
    storage: Storage::Dicom { modality: "US", window: [127.5, 255.0], field: Some(FIELD) },
    domain: |size| Domain::grey_levels(&[1, size, size], 255.0),
    draw,
};

struct Breast {
    fat: f32,
    gland: f32,
    waves: Waves,
    lobules: Waves,
    fibres: Waves,
    vessels: Vec<Blob>,
}

impl Breast {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let (fat, gland) = (normal(rng, 1.1, 0.2), normal(rng, 3.2, 0.25));
        let vessels = (0..3)
            .map(|_| {
                let (place, radius) = ((uniform(rng, -2.0, 2.0), uniform(rng, 1.2, 3.0)), uniform(rng, 0.06, 0.17));
                Blob::new(place, (radius * uniform(rng, 1.0, 2.2), radius), 0.05, rng).turned(normal(rng, 0.0, 0.3))
            })
            .collect();
        Self {
            fat,
            gland,
            waves: Waves::new(12, (1.5, 6.0), 0.6, rng),
            lobules: Waves::new(24, (0.5, 1.3), 0.4, rng),
            fibres: Waves::new(24, (0.25, 1.2), 0.4, rng),
            vessels,
        }
    }

    /// Strength of the scatterers at `x` from the middle and `y` below the face of the probe.
    fn scattering(&self, x: f32, y: f32) -> f32 {
        let bend = 0.14 * self.waves.at(x, 0.4 * y);
        let (fat, gland) = (self.fat + bend, self.gland + 0.6 * bend);
        let soft = |distance: f32| smooth_step(distance / 0.06 + 0.5);
        // Lobules of fat between thin septa, which lie flat.
        let septum = self.lobules.at(0.55 * x, 1.5 * y).abs();
        let lobes = 0.10 + 0.75 * bell(septum / 0.10);
        let tissue = 0.75 + 0.3 * self.fibres.at(0.5 * x, 1.6 * y) + 0.18 * self.lobules.at(x, y);
        let dark_lobe = smooth_step(1.8 * self.lobules.at(0.6 * x + 3.0, 1.2 * y) - 1.0);
        let gland_echo = mix(tissue.max(0.15), 0.16, dark_lobe);
        let stripes = 0.16 + 0.55 * bell((self.fibres.at(0.12 * x, 2.2 * y)).abs() / 0.22);
        let mut value = mix(1.0, lobes, soft(y - 0.16));
        value = mix(value, gland_echo, soft(y - fat));
        value = mix(value, stripes, soft(y - gland));
        // Bright sheets between the layers.
        value += 1.3 * bell((y - gland) / 0.035) + 0.5 * bell((y - fat) / 0.03);
        for vessel in &self.vessels {
            value = mix(value, 0.02, vessel.cover(x, y, 0.04));
        }
        value
    }
}

fn draw(order: &Order) -> Drawing {
    let rng = &mut order.rng();
    let breast = Breast::draw(rng);
    let ease = 1.0 - order.difficulty;
    let radius = uniform(rng, 0.3 + 0.25 * ease, 0.55 + 0.55 * ease);
    let place = (uniform(rng, -1.0, 1.0), uniform(rng, 1.3, 2.5));
    let mass = Blob::new(place, (radius, radius * uniform(rng, 0.6, 1.1)), 0.09, rng);
    let echo = mix(0.04, 0.2, order.difficulty * uniform(rng, 0.3, 1.0));
    let absorbs = uniform(rng, -0.2, 0.8);
    let softness = mix(0.03, 0.18, uniform(rng, 0.0, 1.0) * order.difficulty);
    let cover = |x: f32, y: f32| if order.class == 1 { mass.cover(x, y, softness) } else { 0.0 };
    // The plane, once for all lines; both are zero-centred in x.
    let plane = Canvas::new(200, FIELD, |x, y| breast.scattering(x - FIELD / 2.0, y));
    let inside_of = Canvas::new(200, FIELD, |x, y| cover(x - FIELD / 2.0, y));
    let to_plane = |depth: f32, angle: f32| ((PROBE + depth) * angle.sin(), (PROBE + depth) * angle.cos() - PROBE);

    // Scatterers with their attenuation, on depths and lines.
    let depths = (DEPTH * RATE) as usize;
    let angle_of = |line: usize| HALF_ANGLE * (2.0 * (line as f32 + 0.5) / LINES as f32 - 1.0);
    let mut echoes = vec![[0.0f32; 2]; depths * LINES];
    let reach = (0.035 * RATE) as usize;
    let pulse: Vec<[f32; 2]> = (0..=2 * reach)
        .map(|at| (at as f32 - reach as f32) / RATE)
        .map(|d| (bell(d / 0.012), TAU * 2.0 * d / WAVELENGTH))
        .map(|(height, turn)| [height * turn.cos(), height * turn.sin()])
        .collect();
    for line in 0..LINES {
        let (mut lost, mut scatterers) = (0.0, vec![0.0f32; depths + 2 * reach]);
        for at in 0..depths {
            let depth = at as f32 / RATE;
            let (x, y) = to_plane(depth, angle_of(line));
            let inside = inside_of.at(x + FIELD / 2.0, y);
            let mut strength = mix(plane.at(x + FIELD / 2.0, y), echo, inside);
            // The far wall of a smooth mass reflects.
            strength += if order.class == 1 {
                0.35 * bell((mass.level(x, y) + 0.06) / 0.06) * smooth_step(y - place.1)
            } else {
                0.0
            };
            lost += inside * absorbs * ATTENUATION / RATE;
            scatterers[at + reach] = normal(rng, 0.0, 1.0) * strength * (-lost - ATTENUATION * depth).exp();
        }
        for at in 0..depths {
            let mut sum = [0.0f32; 2];
            for (wave, scatterer) in pulse.iter().zip(&scatterers[at..]) {
                sum[0] += wave[0] * scatterer;
                sum[1] += wave[1] * scatterer;
            }
            echoes[at * LINES + line] = sum;
        }
    }

    // The beam mixes neighbouring lines, the less the nearer to the focus; then noise, gain and compression.
    let focus = uniform(rng, 1.5, 2.4);
    let (receiver, gain) = (0.0035 * uniform(rng, 0.7, 1.4), normal(rng, 0.0, 2.0));
    let tilt = normal(rng, 0.0, 1.0);
    let mut compressed = vec![0.0f32; depths * LINES];
    for at in 0..depths {
        let depth = at as f32 / RATE;
        let width = (0.03 + 0.035 * (depth - focus).abs()).min(0.12);
        let step = (PROBE + depth) * 2.0 * HALF_ANGLE / LINES as f32;
        let beam: Vec<f32> = (0..=12).map(|offset| bell(offset as f32 * step / width)).collect();
        let power = beam.iter().map(|b| b * b).sum::<f32>() * 2.0;
        for line in 0..LINES {
            let mut sum = [normal(rng, 0.0, receiver), normal(rng, 0.0, receiver)];
            for offset in -12..=12i32 {
                let Some(near) = line.checked_add_signed(offset as isize).filter(|near| *near < LINES) else {
                    continue;
                };
                let weight = beam[offset.unsigned_abs() as usize] / power.sqrt();
                sum[0] += weight * echoes[at * LINES + near][0];
                sum[1] += weight * echoes[at * LINES + near][1];
            }
            let level = 20.0 * (sum[0].hypot(sum[1]).max(1e-9) / 2.6).log10() + 8.686 * ATTENUATION * depth;
            compressed[at * LINES + line] = 255.0 * (1.0 + (level - 16.0 + gain + tilt * (depth - 2.0)) / RANGE);
        }
    }

    // The fan.
    let factor = factor(order.size, 192);
    let to_polar = |x: f32, y: f32| {
        let (x, y) = (x - FIELD / 2.0, y - 0.25 + PROBE * HALF_ANGLE.cos());
        (x.hypot(y) - PROBE, x.atan2(y))
    };
    let fan = Canvas::new(order.size * factor, FIELD, |x, y| {
        let (depth, angle) = to_polar(x, y);
        let (row, column) = (depth * RATE - 0.5, 0.5 * (angle / HALF_ANGLE + 1.0) * LINES as f32 - 0.5);
        if row < 0.0 || row + 1.0 >= depths as f32 || column < 0.0 || column + 1.0 >= LINES as f32 {
            return 0.0;
        }
        let (top, left) = (row as usize, column as usize);
        let line = |left: usize| mix(compressed[top * LINES + left], compressed[(top + 1) * LINES + left], row.fract());
        mix(line(left), line(left + 1), column.fract()).clamp(0.0, 255.0)
    });
    let mask = Canvas::new(order.size * factor, FIELD, |x, y| {
        let (depth, angle) = to_polar(x, y);
        let (x, y) = to_plane(depth, angle);
        cover(x, y)
    });
    Drawing { values: fan.shrink(factor).values().to_vec(), mask: outline(mask.shrink(factor).values(), 0.5) }
}
