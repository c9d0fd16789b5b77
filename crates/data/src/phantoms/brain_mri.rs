//! Magnetic resonance of the brain (FLAIR), with a lesion as the finding, acquired in k-space.
//!
//! Tissues have proton density PD and relaxation times T1 and T2; the signal is that of inversion recovery with a spin echo:
//!
//! ```text
//! S(x, y) = PD · |1 - 2 exp(-TI/T1) + exp(-TR/T1)| · exp(-TE/T2) · coil sensitivity · exp(i phase)
//! K(u, v) = Σ S(x, y) exp(-2πi (ux + vy)) + n,      n complex normal       the lines that the scanner samples
//! picture = |inverse transform of K|                                       so its noise is Rician
//! ```
//!
//! The object is finer than the grid of k-space, so that edges ring as they do in scanners. Anatomy: scalp, skull,
//! cerebrospinal fluid, a folded cortex (its furrows are the zero lines of a smooth random field), white matter, ventricles,
//! deep grey nuclei, and the fissure between the hemispheres. The lesion is a patch with more free water (long T2); the harder, the
//! smaller (from 1.6 to 3.9 cm wide down to 0.8 to 1.6), and the less of it is changed tissue.
//!
//! Sources: the signal equation and k-space as in any textbook (Haacke et al., 1999, chapters 8 to 10); Rician magnitude: Gudbjartsson and
//! Patz, Magn. Reson. Med. 34, 1995. Relaxation times are rounded values at 1.5 T.

use std::f32::consts::TAU;

use nocebo_core::Domain;

use super::canvas::{Canvas, outline, smooth_step};
use super::field::{Blob, Waves, bell, mix};
use super::{Drawing, Modality, Order, Storage, chance, factor, normal, uniform};

/// Width and height of the picture in cm.
const FIELD: f32 = 22.0;
/// Repetition, inversion and echo time in ms.
const TIMES: [f32; 3] = [9000.0, 2450.0, 105.0];
/// Proton density, T1 and T2 in ms.
const FAT: [f32; 3] = [0.75, 260.0, 85.0];
const BONE: [f32; 3] = [0.08, 300.0, 40.0];
const FLUID: [f32; 3] = [1.0, 4200.0, 1900.0];
const GREY: [f32; 3] = [0.83, 950.0, 100.0];
const WHITE: [f32; 3] = [0.71, 620.0, 83.0];
const LESION: [f32; 3] = [0.9, 1300.0, 190.0];
const AIR: [f32; 3] = [0.0, 300.0, 40.0];

pub(super) const MODALITY: Modality = Modality {
    name: "brain-mri",
    about: "FLAIR slice of the brain from k-space, with a lesion",
    classes: &["normal", "lesion"],
    size: 64,
    difficulty: 0.3,
    storage: Storage::Dicom { modality: "MR", window: [1000.0, 2000.0], field: Some(FIELD) },
    domain: |size| Domain::grey_levels(&[1, size, size], 4095.0),
    draw,
};

fn signal([density, t1, t2]: [f32; 3]) -> f32 {
    let [repetition, inversion, echo] = TIMES;
    density * (1.0 - 2.0 * (-inversion / t1).exp() + (-repetition / t1).exp()).abs() * (-echo / t2).exp()
}

/// Real and imaginary part.
type Complex = [f32; 2];

/// Real and imaginary parts `[2, size, size]` of what the scanner samples, see [`super::Phantom::k_space`].
pub(super) fn k_space(order: &Order) -> Vec<f32> {
    let (lines, _) = acquire(order);
    (0..2).flat_map(|part| lines.iter().map(move |line| line[part])).collect()
}

/// What the scanner samples: `[size, size]` complex numbers, the middle of k-space in the middle, rows first; and the mask.
fn acquire(order: &Order) -> (Vec<Complex>, Vec<bool>) {
    let rng = &mut order.rng();
    let factor = factor(order.size, 160);
    let side = order.size * factor;
    let head = (normal(rng, 7.3, 0.25), normal(rng, 9.0, 0.3));
    let (angle, shift) = (normal(rng, 0.0, 0.05), (normal(rng, 0.0, 0.25), normal(rng, 0.0, 0.25)));
    let folds = Waves::new(40, (2.0, 3.6), 0.3, rng);
    let wobble = Waves::new(12, (2.5, 8.0), 0.6, rng);
    let texture = Waves::new(20, (0.5, 2.0), 0.5, rng);
    let size = normal(rng, 1.0, 0.15);
    let tilt = normal(rng, 0.0, 0.3);

    let ease = 1.0 - order.difficulty;
    let radius = uniform(rng, 0.4 + 0.4 * ease, 0.8 + 1.15 * ease);
    let turn = uniform(rng, 0.0, TAU);
    let reach = uniform(rng, 0.35, 0.75);
    let place = (
        (0.82 * head.0 * turn.cos() * reach).abs().max(2.3) * if chance(rng, 0.5) { 1.0 } else { -1.0 },
        head.1 * turn.sin() * reach,
    );
    let lesion = Blob::new(place, (radius, radius * uniform(rng, 0.6, 0.95)), 0.1, rng);
    let amount = uniform(rng, 0.25 + 0.5 * ease, (0.6 + 0.5 * ease).min(1.0));

    let (sine, cosine) = angle.sin_cos();
    let to_head = |x: f32, y: f32| {
        let (u, v) = (x - FIELD / 2.0 - shift.0, y - FIELD / 2.0 - shift.1);
        (cosine * u + sine * v, cosine * v - sine * u)
    };
    let edge = |distance: f32| (distance / 0.08 + 0.5).clamp(0.0, 1.0);
    let [fat, bone, fluid, grey, white, patch, air] = [FAT, BONE, FLUID, GREY, WHITE, LESION, AIR].map(signal);
    let cover = |x: f32, y: f32| smooth_step((lesion.level(x, y) * radius / 0.35 + 0.5).clamp(0.0, 1.0));
    let object = Canvas::new(side, FIELD, |x, y| {
        let (x, y) = to_head(x, y);
        // Depth below the skin; the head is an egg, narrower in front (top).
        let wide = head.0 * (1.0 + 0.07 * smooth_step((y + 6.0) / 12.0)) - 0.25;
        let depth = (1.0 - ((x / wide).abs().powf(2.15) + (y / head.1).abs().powf(2.15)).powf(1.0 / 2.15)) * head.0;
        let brain = depth - 1.35 - 0.05 * wobble.at(x, y);
        let mut value = mix(air, 0.6 * fat, edge(depth));
        value = mix(value, fat * (1.0 + 0.1 * texture.at(x, y)), edge(depth - 0.2));
        value = mix(value, bone, edge(depth - 0.55 - 0.06 * wobble.at(y, x)));
        // Marrow between the tables of the skull.
        value = mix(value, 0.35 * fat, edge(0.12 - (depth - 0.85).abs()));
        value = mix(value, fluid, edge(brain + 0.12));
        if brain > -0.2 {
            // Furrows: the nearer to the surface, the wider.
            let steep = folds.steepness(x, y).max(0.8);
            let furrow = folds.at(x, y).abs() / steep;
            let fissure = (x - 0.06 * wobble.at(0.0, y)).abs();
            let open = if y.abs() > 2.6 { 0.07 } else { 0.0 };
            let deep = smooth_step((brain - 1.0) / 1.3);
            let gap = 0.10 - 0.03 * brain - 0.10 * deep;
            let ribbon = 0.42 - 0.42 * deep;
            let near = if open > 0.0 { fissure } else { 9.0 };
            let mut matter =
                mix(grey, white, edge(brain - 0.30).min(edge(furrow - gap.max(0.0) - ribbon)).min(edge(near - 0.4)));
            matter *= 1.0 + 0.025 * texture.at(x, y);
            value = mix(value, matter, edge(brain));
            value = mix(value, fluid, edge(gap - furrow).min(edge(brain - 0.05)));
            value = mix(value, fluid, edge(open - fissure).min(edge(brain)));
            // Deep nuclei and ventricles, mirrored.
            let u = x.abs();
            let ellipse = |cx: f32, cy: f32, a: f32, b: f32, lean: f32| {
                let (p, q) = (u - cx, y - cy);
                (1.0 - ((p + lean * q) / a).hypot(q / b)) * a.min(b)
            };
            for nucleus in [
                ellipse(1.0, 1.4, 0.85, 1.25, 0.25),
                ellipse(2.5, -0.1, 0.6, 1.5, -0.25),
                ellipse(1.25, -2.1, 0.5, 0.95, -0.35),
            ] {
                value = mix(value, mix(grey, white, 0.15), edge(nucleus));
            }
            let front = ellipse(0.75, -2.3, 0.42 * size, 1.35 * size, 0.38);
            let back = ellipse(1.65 + 0.1 * tilt, 3.3, 0.48 * size, 1.45 * size, -0.4);
            let third = ellipse(0.0, 0.9, 0.12 * size, 1.1, 0.0);
            let ventricles = front.max(back).max(third);
            value = mix(value, 1.12 * white, edge(ventricles + 0.1));
            value = mix(value, fluid, edge(ventricles));
            if order.class == 1 {
                value = mix(value, mix(value, patch, amount), cover(x, y) * edge(brain));
            }
        }
        value
    });
    let mask = Canvas::new(side, FIELD, |x, y| {
        let (x, y) = to_head(x, y);
        f32::from(order.class == 1) * cover(x, y)
    });
    let mask = outline(mask.shrink(factor).values(), 0.5);

    let coil = (uniform(rng, 4.0, 18.0), uniform(rng, 2.0, 20.0), uniform(rng, 0.1, 0.25));
    let phase = [normal(rng, 0.0, 0.04), normal(rng, 0.0, 0.04), normal(rng, 0.0, 1.0)];
    let mut field = Vec::with_capacity(side * side);
    let step = FIELD / side as f32;
    for (at, &value) in object.values().iter().enumerate() {
        let (x, y) = ((at % side) as f32 * step, (at / side) as f32 * step);
        let strength = value * (1.0 - coil.2 + 2.0 * coil.2 * bell((x - coil.0).hypot(y - coil.1) / 9.0));
        let turn = phase[0] * x + phase[1] * y + phase[2];
        field.push([strength * turn.cos(), strength * turn.sin()]);
    }
    let lines = transform(&field, side, order.size, -1.0);
    // Per point of k-space; the transform back takes means, so a pixel gets this times 1 / size.
    let noise = uniform(rng, 0.004, 0.009) * order.size as f32 * (factor * factor) as f32;
    let scale = 6_000.0 / (factor * factor) as f32;
    let mut measured = |part: f32| scale * (part + normal(rng, 0.0, noise));
    (lines.into_iter().map(|[re, im]| [measured(re), measured(im)]).collect(), mask)
}

/// Discrete Fourier transform of `[from, from]` values on the middle `[to, to]` frequencies, or back: first the rows, then the
/// columns. Both sides have their zero in the middle.
fn transform(values: &[Complex], from: usize, to: usize, direction: f32) -> Vec<Complex> {
    let period = from.max(to);
    let waves: Vec<Complex> = (0..period)
        .map(|at| direction * TAU * at as f32 / period as f32)
        .map(|turn| [turn.cos(), turn.sin()])
        .collect();
    let pass = |values: &[Complex], rows: usize| {
        let mut out = vec![[0.0; 2]; rows * to];
        for row in 0..rows {
            for frequency in 0..to {
                let mut sum = [0.0f32; 2];
                for (at, [re, im]) in values[row * from..(row + 1) * from].iter().enumerate() {
                    let product = (at + period - from / 2) * (frequency + period - to / 2);
                    let [cosine, sine] = waves[product % period];
                    sum[0] += re * cosine - im * sine;
                    sum[1] += re * sine + im * cosine;
                }
                // Written across, so that the second pass runs over the columns.
                out[frequency * rows + row] = sum;
            }
        }
        out
    };
    pass(&pass(values, from), to)
}

fn draw(order: &Order) -> Drawing {
    let (lines, mask) = acquire(order);
    let picture = transform(&lines, order.size, order.size, 1.0);
    let values = picture.iter().map(|[re, im]| re.hypot(*im) / order.size.pow(2) as f32).collect();
    Drawing { values, mask }
}
