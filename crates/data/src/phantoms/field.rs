//! Smooth random fields, irregular outlines, and what else several phantoms draw with.

use std::f32::consts::TAU;

use rand::Rng;

use super::{normal, uniform};

/// A smooth random field of unit variance without a preferred direction: plane waves of random direction and phase.
#[derive(Clone, Debug)]
pub(crate) struct Waves(Vec<[f32; 5]>);

impl Waves {
    /// Waves of `lengths` (shortest, longest), spread evenly over the logarithm of the length; amplitudes grow with the
    /// power `slope` of the length, so that a slope of 1 looks like clouds.
    pub(crate) fn new(count: usize, lengths: (f32, f32), slope: f32, rng: &mut impl Rng) -> Self {
        let mut waves: Vec<[f32; 5]> = (0..count)
            .map(|at| {
                let share = (at as f32 + uniform(rng, 0.0, 1.0)) / count as f32;
                let length = lengths.0 * (lengths.1 / lengths.0).powf(share);
                let (turn, rise) = (uniform(rng, 0.0, TAU), uniform(rng, -1.0, 1.0));
                let [x, y] = [turn.cos(), turn.sin()].map(|part| part * TAU / length);
                [x, y, rise * TAU / length, uniform(rng, 0.0, TAU), length.powf(slope)]
            })
            .collect();
        let power: f32 = waves.iter().map(|wave| 0.5 * wave[4] * wave[4]).sum();
        waves.iter_mut().for_each(|wave| wave[4] /= power.sqrt());
        Self(waves)
    }

    pub(crate) fn at(&self, x: f32, y: f32) -> f32 {
        self.at3(x, y, 0.0)
    }

    pub(crate) fn at3(&self, x: f32, y: f32, z: f32) -> f32 {
        self.0.iter().map(|[kx, ky, kz, phase, height]| height * (kx * x + ky * y + kz * z + phase).cos()).sum()
    }

    /// Slope of the field in the plane, per unit of length.
    pub(crate) fn steepness(&self, x: f32, y: f32) -> f32 {
        let (mut along, mut down) = (0.0, 0.0);
        for [kx, ky, _, phase, height] in &self.0 {
            let change = -height * (kx * x + ky * y + phase).sin();
            along += kx * change;
            down += ky * change;
        }
        along.hypot(down)
    }
}

/// An ellipse with a wavy edge.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub(crate) centre: (f32, f32),
    pub(crate) radii: (f32, f32),
    angle: f32,
    /// Amplitude and phase of the waves with 2, 3, ... crests around the edge.
    waves: [(f32, f32); 7],
}

impl Blob {
    /// `roughness` 0 is an ellipse; 0.1 is a lobed outline.
    pub(crate) fn new(centre: (f32, f32), radii: (f32, f32), roughness: f32, rng: &mut impl Rng) -> Self {
        let angle = uniform(rng, 0.0, TAU);
        let waves = std::array::from_fn(|at| {
            (normal(rng, 0.0, roughness) / (at as f32 + 1.0).sqrt(), uniform(rng, 0.0, TAU))
        });
        Self { centre, radii, angle, waves }
    }

    /// The same outline at a given angle.
    pub(crate) fn turned(self, angle: f32) -> Self {
        Self { angle, ..self }
    }

    /// 1 in the centre, 0 on the edge, negative outside.
    pub(crate) fn level(&self, x: f32, y: f32) -> f32 {
        let (sine, cosine) = self.angle.sin_cos();
        let (u, v) = (x - self.centre.0, y - self.centre.1);
        let (p, q) = ((cosine * u + sine * v) / self.radii.0, (cosine * v - sine * u) / self.radii.1);
        let direction = q.atan2(p);
        let waves = (2..).zip(&self.waves).map(|(crests, (height, phase))| {
            height * (crests as f32 * direction + phase).cos()
        });
        1.0 - p.hypot(q) / (1.0 + waves.sum::<f32>()).max(0.3)
    }

    /// Share of a pixel at (x, y) inside the outline, where the edge is `softness` wide.
    pub(crate) fn cover(&self, x: f32, y: f32, softness: f32) -> f32 {
        let distance = self.level(x, y) * self.radii.0.min(self.radii.1);
        (distance / softness + 0.5).clamp(0.0, 1.0)
    }
}

/// Standard bell of height 1.
pub(crate) fn bell(t: f32) -> f32 {
    (-0.5 * t * t).exp()
}

/// From `from` at 0 to `to` at 1.
pub(crate) fn mix(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

/// Grey levels of 8 bits.
pub(crate) fn grey(values: impl IntoIterator<Item = f32>) -> Vec<f32> {
    values.into_iter().map(|value| value.round().clamp(0.0, 255.0)).collect()
}
