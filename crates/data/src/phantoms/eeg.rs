//! Electroencephalogram epochs after a flash, with the P300 as the finding: the averages of a few trials at eight electrodes.
//!
//! ```text
//! x(channel, t) = background + alpha + visual response + [target] · P300(t) · weight(channel) + white noise
//! ```
//!
//! The background has a spectrum that falls with the frequency (1/f), the same sources reaching neighbouring electrodes; alpha waves of 8
//! to 12 Hz are strongest at the back. Every flash brings a small early response over the visual cortex; one that was waited for
//! also a positive wave that peaks 300 to 450 ms later, largest at Pz. The harder, the smaller that wave.
//!
//! Sources: Farwell and Donchin, Electroencephalogr. Clin. Neurophysiol. 70, 1988, for the paradigm; sizes are usual ones.

use std::f32::consts::TAU;

use nocebo_core::{DomainConfig, Field, Unit};

use super::field::{bell, mix};
use super::{Drawing, Modality, Order, Storage, normal, uniform};

const RATE: f32 = 128.0;
/// Places of Fz, Cz, Pz, Oz, P3, P4, PO7, PO8 on a flat head (right, back), and weight of the P300.
const ELECTRODES: [(f32, f32, f32); 8] = [
    (0.0, -0.5, 0.45),
    (0.0, 0.0, 0.8),
    (0.0, 0.5, 1.0),
    (0.0, 0.95, 0.4),
    (-0.45, 0.5, 0.8),
    (0.45, 0.5, 0.8),
    (-0.6, 0.8, 0.5),
    (0.6, 0.8, 0.5),
];

pub(super) const MODALITY: Modality = Modality {
    name: "eeg",
    about: "eight-channel EEG after a flash in uV, with or without a P300",
    classes: &["no response", "P300"],
    size: 128,
    difficulty: 0.35,
    storage: Storage::Records { frequency: RATE as f64 },
    domain: |size| {
        DomainConfig {
            shape: vec![ELECTRODES.len(), size],
            unit: Unit::Microvolt,
            lower: Field::Uniform(-3276.8),
            upper: Field::Uniform(3276.7),
            resolution: Field::Uniform(0.1),
            region: None,
        }
        .try_into()
    },
    draw,
};

fn draw(order: &Order) -> Drawing {
    let rng = &mut order.rng();
    let seconds = order.size as f32 / RATE;
    let ease = 1.0 - order.difficulty;
    // Sources of the background: place, and waves with amplitudes that fall with the frequency.
    let sources: Vec<(f32, f32, Vec<[f32; 3]>)> = (0..10)
        .map(|_| {
            let place = (normal(rng, 0.0, 0.6), normal(rng, 0.0, 0.6));
            let waves = (1..=(45.0 * seconds.max(1.0)) as usize).map(|number| {
                let frequency = number as f32 * 0.9 / seconds.max(1.0);
                [frequency, uniform(rng, 0.0, TAU), normal(rng, 0.0, 2.6) / (0.7 + frequency).powf(0.9)]
            });
            (place.0, place.1, waves.collect())
        })
        .collect();
    let alpha = [uniform(rng, 8.5, 11.5), uniform(rng, 0.0, TAU), uniform(rng, 0.3, 2.4), uniform(rng, 0.2, 0.8)];
    let size = uniform(rng, 1.2 + 1.8 * ease, 3.0 + 4.5 * ease);
    let (peak, width) = (uniform(rng, 0.30, 0.43), uniform(rng, 0.05, 0.09));
    let early = (uniform(rng, 1.0, 2.5), normal(rng, 0.17, 0.01));
    let mut values = Vec::with_capacity(ELECTRODES.len() * order.size);
    for (x, y, weight) in ELECTRODES {
        let back = mix(0.15, 1.0, ((y + 0.5) / 1.45).clamp(0.0, 1.0));
        for sample in 0..order.size {
            let time = sample as f32 / RATE;
            let mut value = normal(rng, 0.0, 0.6);
            for (at_x, at_y, waves) in &sources {
                let near = bell((x - at_x).hypot(y - at_y) / 0.5);
                if near > 0.02 {
                    value += near
                        * waves.iter().map(|[f, phase, height]| height * (TAU * f * time + phase).cos()).sum::<f32>();
                }
            }
            value += alpha[2]
                * back
                * (1.0 + alpha[3] * (TAU * 0.8 * time + alpha[1]).sin())
                * (TAU * alpha[0] * time + alpha[1]).sin();
            value += early.0 * back * (bell((time - early.1 + 0.06) / 0.02) - 1.3 * bell((time - early.1) / 0.03));
            if order.class == 1 {
                value += size * weight * bell((time - peak) / width);
            }
            values.push(value);
        }
    }
    Drawing { values, mask: Vec::new() }
}
