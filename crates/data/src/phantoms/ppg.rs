//! Photoplethysmograms of a finger: a regular pulse, an irregular one, or one behind a narrowed artery.
//!
//! A pulse is a forward wave and its reflection; volume rises fast and falls slowly:
//!
//! ```text
//! p(t) = w(t; t₁, s₁) + r · w(t; t₂, s₂),   w(t; m, s) = exp(-ln²(t/m) / 2s²)      t in seconds from the foot of the pulse
//! ```
//!
//! Breathing sways baseline, height and rate. An irregular rhythm (fibrillation) draws every interval anew, and a heart that had
//! less time to fill gives a smaller pulse. A stenosis makes the rise slow, the peak late and low, and hides the notch. The harder,
//! the nearer all three are to each other; motion disturbs all of them.
//!
//! Sources: two-wave pulse decomposition as in Rubins, Med. Biol. Eng. Comput. 46, 2008, with log-normal waves of ours.

use std::f32::consts::TAU;

use nocebo_core::{DomainConfig, Field, Unit};

use super::field::{bell, mix};
use super::{Drawing, Modality, Order, Storage, normal, uniform};

const RATE: f32 = 100.0;

pub(super) const MODALITY: Modality = Modality {
    name: "ppg",
    about: "finger pulse wave: regular, irregular, or behind a stenosis",
    classes: &["regular", "irregular", "stenosis"],
    size: 800,
    difficulty: 0.5,
    storage: Storage::Records { frequency: RATE as f64 },
    domain: |size| {
        DomainConfig {
            shape: vec![1, size],
            unit: Unit::Other("NU".to_owned()),
            lower: Field::Uniform(-2.047),
            upper: Field::Uniform(2.047),
            resolution: Field::Uniform(0.001),
            region: None,
        }
        .try_into()
    },
    draw,
};

fn draw(order: &Order) -> Drawing {
    let rng = &mut order.rng();
    let ease = 1.0 - order.difficulty;
    let seconds = order.size as f32 / RATE;
    let mean = 60.0 / uniform(rng, 56.0, 98.0);
    let breath = [uniform(rng, 0.18, 0.32), uniform(rng, 0.0, TAU), uniform(rng, 0.01, 0.05), uniform(rng, 0.03, 0.12)];
    let irregular = if order.class == 1 { uniform(rng, 0.05 + 0.07 * ease, 0.10 + 0.16 * ease) } else { 0.01 };
    let narrow = if order.class == 2 {
        uniform(rng, 0.15 + 0.4 * ease, 0.5 + 0.5 * ease)
    } else {
        uniform(rng, 0.0, 0.3 * order.difficulty)
    };
    let rise = mix(0.15, 0.27, narrow) * normal(rng, 1.0, 0.08);
    let (reflection, late) =
        (mix(uniform(rng, 0.35, 0.6), 0.25, narrow), mix(0.42, 0.46, narrow) * normal(rng, 1.0, 0.05));
    let height = mix(0.75, 0.5, narrow) * normal(rng, 1.0, 0.12);

    // Feet of the pulses, their heights and their intervals.
    let (mut feet, mut time, mut before) = (Vec::new(), -mean * uniform(rng, 1.0, 2.0), mean);
    while time < seconds {
        let sway = (TAU * breath[0] * time + breath[1]).sin();
        let interval = (mean * (1.0 + breath[2] * sway + normal(rng, 0.0, irregular))).max(0.35);
        let filled = 1.0 + 0.9 * (before / mean - 1.0).clamp(-0.6, 0.3);
        feet.push((time, height * filled * (1.0 + 0.6 * breath[3] * sway), (mean / 0.85).sqrt()));
        time += interval;
        before = interval;
    }
    let motion: Vec<(f32, f32, f32)> = (0..uniform(rng, 0.0, 2.5) as usize)
        .map(|_| (uniform(rng, 0.0, seconds), uniform(rng, 0.1, 0.4), normal(rng, 0.0, 0.12)))
        .collect();
    let noise = uniform(rng, 0.004, 0.012 + 0.01 * order.difficulty);
    let wave = |t: f32, middle: f32, spread: f32| if t > 0.0 { bell((t / middle).ln() / spread) } else { 0.0 };
    let values = (0..order.size)
        .map(|sample| {
            let time = sample as f32 / RATE;
            let pulses: f32 = feet
                .iter()
                .filter(|(foot, ..)| (0.0..2.5).contains(&(time - foot)))
                .map(|(foot, height, slow)| {
                    let t = time - foot;
                    height * (wave(t, rise, mix(0.48, 0.55, narrow)) + reflection * wave(t, late * slow, 0.30))
                })
                .sum();
            let baseline = breath[3] * (TAU * breath[0] * time + breath[1]).sin();
            let moved: f32 = motion.iter().map(|(at, width, size)| size * bell((time - at) / width)).sum();
            pulses - 0.4 + baseline + moved + normal(rng, 0.0, noise)
        })
        .collect();
    Drawing { values, mask: Vec::new() }
}
