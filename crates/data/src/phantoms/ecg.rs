//! Two-lead electrocardiograms with a rhythm to name: sinus rhythm, atrial fibrillation, or ventricular extrasystoles.
//!
//! A point runs around a circle, once a beat; each wave of the beat is a bell at an angle θᵢ that pushes the signal:
//!
//! ```text
//! θ' = 2π / RR(t)
//! z' = -Σ aᵢ Δθᵢ exp(-Δθᵢ² / 2bᵢ²) - (z - z₀),   Δθᵢ = θ - θᵢ (mod 2π),   i: P, Q, R, S, T
//! ```
//!
//! RR breathes at about 0.25 Hz and sways at 0.1 Hz in sinus rhythm. In fibrillation it is drawn anew for each beat, the P wave is
//! gone and small waves of 4 to 9 Hz run on. An extrasystole comes early, without P, wide, with an opposite T, and a pause follows. Baseline
//! wander, muscle noise and mains hum are added. The harder, the more regular the fibrillation, the larger what is left of the P wave,
//! the narrower and fewer the extrasystoles, and the more noise of muscles.
//!
//! Source: P. `McSharry`, Clifford, Tarassenko and Smith, IEEE Trans. Biomed. Eng. 50, 2003 (equations and the table of aᵢ, bᵢ, θᵢ; the
//! circle alone, since a point on it stays there). Fibrillation and extrasystoles are ours.

use std::f32::consts::{PI, TAU};

use nocebo_core::{DomainConfig, Field, Unit};
use rand_chacha::ChaCha8Rng;

use super::field::mix;
use super::{Drawing, Modality, Order, Storage, chance, normal, uniform};

/// Samples a second, and steps of the integration for each.
const RATE: f32 = 125.0;
const STEPS: usize = 4;
/// Angle, strength and width of P, Q, R, S and T.
const WAVES: [[f32; 3]; 5] =
    [[-PI / 3.0, 1.2, 0.25], [-PI / 12.0, -5.0, 0.1], [0.0, 30.0, 0.1], [PI / 12.0, -7.5, 0.1], [PI / 2.0, 0.75, 0.4]];

pub(super) const MODALITY: Modality = Modality {
    name: "ecg",
    about: "two-lead ECG in mV: sinus rhythm, fibrillation, extrasystoles",
    classes: &["sinus rhythm", "atrial fibrillation", "ventricular extrasystoles"],
    size: 1000,
    difficulty: 0.8,
    storage: Storage::Records { frequency: RATE as f64 },
    domain: |size| {
        DomainConfig {
            shape: vec![2, size],
            unit: Unit::Millivolt,
            lower: Field::Uniform(-10.235),
            upper: Field::Uniform(10.235),
            resolution: Field::Uniform(0.005),
            region: None,
        }
        .try_into()
    },
    draw,
};

/// A beat: its length in seconds and its waves.
struct Beat {
    length: f32,
    waves: [[f32; 3]; 5],
}

fn draw(order: &Order) -> Drawing {
    let rng = &mut order.rng();
    let seconds = order.size as f32 / RATE;
    let beats = beats(order, seconds + 2.0, rng);
    let step = 1.0 / (RATE * STEPS as f32);
    // Lead II and a chest lead, which sees the waves with other strengths.
    let leads = [[1.0; 5], [0.7, 1.6, uniform(rng, 0.35, 0.8), uniform(rng, 1.6, 3.0), uniform(rng, 0.8, 1.5)]];
    let fibrillation = if order.class == 1 { uniform(rng, 0.02, 0.07) * (1.3 - 0.8 * order.difficulty) } else { 0.0 };
    let flutter = [uniform(rng, 4.0, 6.5), uniform(rng, 6.5, 9.0), uniform(rng, 0.0, TAU), uniform(rng, 0.0, TAU)];
    let wander = [uniform(rng, 0.1, 0.35), uniform(rng, 0.0, TAU), uniform(rng, 0.02, 0.12)];
    let (muscle, hum) = (uniform(rng, 0.01, 0.03 + 0.1 * order.difficulty), uniform(rng, 0.0, 0.015));
    let start = uniform(rng, 0.0, 1.0);
    let mut values = Vec::with_capacity(2 * order.size);
    for strength in leads {
        let (mut beat, mut angle, mut z) = (0, -PI + TAU * start, 0.0f32);
        // R waves of about 1.2 mV.
        let height = 4.0;
        for sample in 0..order.size {
            let time = sample as f32 / RATE;
            for _ in 0..STEPS {
                let Beat { length, waves } = &beats[beat.min(beats.len() - 1)];
                let push: f32 = waves
                    .iter()
                    .zip(strength)
                    .map(|([at, size, width], strength)| {
                        let apart = (angle - at + PI).rem_euclid(TAU) - PI;
                        -strength * size * apart * (-0.5 * (apart / width).powi(2)).exp()
                    })
                    .sum();
                z += step * (push * TAU / length - z);
                angle += step * TAU / length;
                if angle > PI {
                    angle -= TAU;
                    beat += 1;
                }
            }
            let waves = fibrillation
                * ((TAU * flutter[0] * time + flutter[2]).sin() + 0.7 * (TAU * flutter[1] * time + flutter[3]).sin());
            let drift = wander[2] * (TAU * wander[0] * time + wander[1]).sin() + hum * (TAU * 50.0 * time).sin();
            values.push(height * z + waves * strength[0] + drift + normal(rng, 0.0, muscle));
        }
    }
    Drawing { values, mask: Vec::new() }
}

/// Enough beats for so many seconds.
fn beats(order: &Order, seconds: f32, rng: &mut ChaCha8Rng) -> Vec<Beat> {
    let ease = 1.0 - order.difficulty;
    let mean = 60.0 / uniform(rng, 58.0, 98.0);
    let (breath, sway) = (
        [uniform(rng, 0.2, 0.3), uniform(rng, 0.0, TAU), uniform(rng, 0.01, 0.05 + 0.07 * order.difficulty)],
        uniform(rng, 0.0, 0.03),
    );
    // Angles in the source are for 60 beats a minute; slower hearts keep the width of the beat in seconds.
    let scale = (1.0 / mean).sqrt();
    let own = WAVES.map(|[at, size, width]| {
        [
            at * scale * normal(rng, 1.0, 0.02),
            size * normal(rng, 1.0, 0.12),
            width * scale.sqrt() * normal(rng, 1.0, 0.05),
        ]
    });
    let irregular = uniform(rng, 0.03 + 0.14 * ease, 0.08 + 0.22 * ease);
    let left_over = uniform(rng, 0.0, 1.0) * order.difficulty;
    let (every, early) = (uniform(rng, 0.1, 0.18 + 0.2 * ease), uniform(rng, 0.55, 0.85));
    let (wide, slow) = (mix(2.7, 1.1, order.difficulty * uniform(rng, 0.3, 1.0)), uniform(rng, 1.0, 1.4));
    let (mut beats, mut time): (Vec<Beat>, f32) = (Vec::new(), 0.0);
    let mut pause = false;
    let forced = 2 + (uniform(rng, 0.0, 3.0) as usize);
    while time < seconds {
        let mut waves = own;
        let mut length = mean
            * (1.0
                + breath[2] * (TAU * breath[0] * time + breath[1]).sin()
                + sway * (0.2 * PI * time).sin()
                + normal(rng, 0.0, 0.008));
        match order.class {
            1 => {
                length = mean * normal(rng, 1.0, irregular).max(0.5);
                waves[0][1] *= left_over;
            }
            2 if pause => {
                length *= 2.0 - early;
                pause = false;
            }
            2 if beats.len() == forced || chance(rng, every) => {
                // The beat before is cut short by coming early; this one is wide.
                waves = [
                    [-PI / 3.0, 0.0, 0.2],
                    [-0.32, -1.5, 0.1 * wide],
                    [-0.05, 5.0 * slow, 0.1 * wide],
                    [0.45, -2.5, 0.09 * wide],
                    [1.5, -slow, 0.4],
                ];
                if let Some(before) = beats.last_mut() {
                    before.length *= early;
                    time -= before.length * (1.0 / early - 1.0);
                }
                pause = true;
            }
            _ => {}
        }
        time += length;
        beats.push(Beat { length, waves });
    }
    beats
}
