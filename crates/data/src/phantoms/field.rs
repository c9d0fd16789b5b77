//! Smooth random fields, irregular outlines, and what else several phantoms draw with.

use std::f32::consts::TAU;

use rand::Rng;

use super::{normal, uniform};

/// A smooth random field of unit variance without a preferred direction: plane waves of random direction and phase. Each is turns a unit
/// of length along the axes, phase in turns, and amplitude.
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
                [turn.cos() / length, turn.sin() / length, rise / length, uniform(rng, 0.0, 1.0), length.powf(slope)]
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
        self.0.iter().map(|[kx, ky, kz, phase, height]| height * wave(kx * x + ky * y + kz * z + phase)).sum()
    }

    /// Slope of the field in the plane, per unit of length.
    pub(crate) fn steepness(&self, x: f32, y: f32) -> f32 {
        let (mut along, mut down) = (0.0, 0.0);
        for [kx, ky, _, phase, height] in &self.0 {
            let change = TAU * height * wave(kx * x + ky * y + phase + 0.25);
            along += kx * change;
            down += ky * change;
        }
        along.hypot(down)
    }
}

/// Cosine of an angle in turns, to 2e-4: a fifth of the time of the library's, and most of what phantoms compute.
fn wave(turns: f32) -> f32 {
    // The sum with 1.5 · 2²³ has no digits behind the point.
    const WHOLE: f32 = 12_582_912.0;
    let part = turns - ((turns + WHOLE) - WHOLE);
    let x = TAU * (0.25 - part.abs());
    let square = x * x;
    x * (1.0 - square * (1.0 / 6.0 - square * (1.0 / 120.0 - square / 5040.0)))
}

/// An ellipse with a wavy edge.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub(crate) centre: (f32, f32),
    pub(crate) radii: (f32, f32),
    angle: f32,
    /// Amplitude and phase (in turns) of the waves with 2, 3, ... crests around the edge.
    waves: [(f32, f32); 7],
}

impl Blob {
    /// `roughness` 0 is an ellipse; 0.1 is a lobed outline.
    pub(crate) fn new(centre: (f32, f32), radii: (f32, f32), roughness: f32, rng: &mut impl Rng) -> Self {
        let angle = uniform(rng, 0.0, TAU);
        let waves =
            std::array::from_fn(|at| (normal(rng, 0.0, roughness) / (at as f32 + 1.0).sqrt(), uniform(rng, 0.0, 1.0)));
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
        if p.hypot(q) > 2.0 {
            return 1.0 - p.hypot(q);
        }
        let direction = q.atan2(p) / TAU;
        let waves =
            (2..).zip(&self.waves).map(|(crests, (height, phase))| height * wave(crests as f32 * direction + phase));
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

#[cfg(test)]
mod tests {
    use nocebo_core::Seed;

    use super::*;

    #[test]
    fn the_short_cosine_is_near_the_long_one() {
        for at in -400..400 {
            let turns = at as f32 * 0.0173;
            assert!((wave(turns) - (TAU * turns).cos()).abs() < 3e-4, "{turns}");
        }
    }

    #[test]
    fn waves_have_unit_variance_and_the_steepness_of_their_differences() {
        let waves = Waves::new(40, (1.0, 2.0), 0.0, &mut Seed(1).for_sample(0));
        let power =
            (0..10_000).map(|at| waves.at((at % 100) as f32 * 0.5, (at / 100) as f32 * 0.5).powi(2)).sum::<f32>();
        assert!((0.8..1.2).contains(&(power / 10_000.0)), "{power}");
        let (dx, dy) = (waves.at(3.01, 4.0) - waves.at(2.99, 4.0), waves.at(3.0, 4.01) - waves.at(3.0, 3.99));
        assert!((dx.hypot(dy) / 0.02 - waves.steepness(3.0, 4.0)).abs() < 0.05 * waves.steepness(3.0, 4.0) + 0.02);
    }

    #[test]
    fn a_blob_without_roughness_is_an_ellipse() {
        let blob = Blob::new((1.0, 2.0), (3.0, 1.0), 0.0, &mut Seed(1).for_sample(0)).turned(0.0);
        assert_eq!(blob.level(1.0, 2.0), 1.0);
        assert!(blob.level(4.0, 2.0).abs() < 1e-5 && blob.level(1.0, 3.0).abs() < 1e-5 && blob.level(9.0, 2.0) < -1.0);
        assert_eq!((blob.cover(1.0, 2.0, 0.1), blob.cover(4.5, 2.0, 0.1)), (1.0, 0.0));
    }
}
