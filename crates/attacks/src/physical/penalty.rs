//! What makes a change hard to print or easy to see, with derivatives. All values are fractions of the range.

use nocebo_core::Error;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Keeps square roots smooth at 0.
const TINY: f64 = 1e-8;

/// Total variation `Σ_p √Σ_axis (v(p + 1) − v(p))²` of every channel; adds `weight` times its derivative to `slopes`.
///
/// Along the last element of an axis there is no difference. A table has no neighbours, so no variation.
pub(super) fn total_variation(sides: &[usize], values: &[f64], weight: f64, slopes: &mut [f64]) -> f64 {
    let plane: usize = sides.iter().product();
    let strides: Vec<usize> = (0..sides.len()).map(|axis| sides[axis + 1..].iter().product()).collect();
    let mut sum = 0.0;
    for at in 0..values.len() {
        let element = at % plane;
        let nexts = strides
            .iter()
            .zip(sides)
            .filter(|(stride, side)| element / **stride % **side + 1 < **side)
            .map(|(stride, _)| at + stride);
        let squared: f64 = nexts.clone().map(|next| (values[next] - values[at]).powi(2)).sum();
        let length = (squared + TINY).sqrt();
        sum += length;
        for next in nexts {
            let slope = weight * (values[next] - values[at]) / length;
            slopes[next] += slope;
            slopes[at] -= slope;
        }
    }
    sum
}

/// Colours that a printer or a film can show, each a fraction of the range for every channel or one for all of them.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Palette(Vec<Vec<f64>>);

impl Default for Palette {
    /// Five even grey levels: a stand-in for a measured palette.
    fn default() -> Self {
        Self((0..5).map(|level| vec![f64::from(level) / 4.0]).collect())
    }
}

impl Palette {
    /// Checks that there are colours and that their parts are fractions.
    pub(super) fn check(&self) -> Result<(), Error> {
        let fraction = |part: &f64| (0.0..=1.0).contains(part);
        if !self.0.is_empty() && self.0.iter().all(|colour| !colour.is_empty() && colour.iter().all(fraction)) {
            Ok(())
        } else {
            Err(Error::invalid(
                "palette",
                "one or more colours, each of fractions from 0 to 1",
                format!("{:?}", self.0),
            ))
        }
    }

    /// Checks that each colour has one part a channel, or one for all.
    pub(super) fn check_channels(&self, channels: usize) -> Result<(), Error> {
        match self.0.iter().find(|colour| colour.len() != 1 && colour.len() != channels) {
            Some(colour) => {
                Err(Error::mismatch("parts of a colour in `palette`", format!("1 or {channels}"), colour.len()))
            }
            None => Ok(()),
        }
    }

    /// Non-printability score: the sum over places of the product of their distances to all colours (Sharif et al.
    /// 2016, equation 6), counted where `counts(place)`; adds `weight` times its derivative to `slopes`.
    pub(super) fn non_printability(
        &self,
        plane: usize,
        values: &[f64],
        counts: impl Fn(usize) -> bool,
        weight: f64,
        slopes: &mut [f64],
    ) -> f64 {
        let channels = values.len() / plane;
        let mut sum = 0.0;
        for place in (0..plane).filter(|&place| counts(place)) {
            let part = |colour: &[f64], channel: usize| colour.get(channel).copied().unwrap_or(colour[0]);
            let away = |colour: &[f64], channel: usize| values[channel * plane + place] - part(colour, channel);
            let distances: Vec<f64> = self
                .0
                .iter()
                .map(|colour| (0..channels).map(|channel| away(colour, channel).powi(2)).sum::<f64>().sqrt())
                .collect();
            sum += distances.iter().product::<f64>();
            for (at, colour) in self.0.iter().enumerate().filter(|(at, _)| distances[*at] > 0.0) {
                let others: f64 =
                    distances.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| other).product();
                for channel in 0..channels {
                    slopes[channel * plane + place] += weight * others * away(colour, channel) / distances[at];
                }
            }
        }
        sum
    }
}

#[cfg(test)]
pub(super) mod testing {
    /// Checks a penalty that adds its derivative against central differences.
    pub(crate) fn agrees_with_differences(values: &[f64], penalty: impl Fn(&[f64], &mut [f64]) -> f64) {
        let mut slopes = vec![0.0; values.len()];
        penalty(values, &mut slopes);
        for element in 0..values.len() {
            let at = |shift: f64| {
                let mut moved = values.to_vec();
                moved[element] += shift;
                penalty(&moved, &mut vec![0.0; values.len()])
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - slopes[element]).abs() < 1e-4, "{element}: {slope} {}", slopes[element]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_variation_by_hand_and_by_differences() {
        // One bright corner: a step of 3 down and of 4 across meet in one place.
        let image = [1.0, 5.0, 4.0, 4.0];
        let sum = total_variation(&[2, 2], &image, 1.0, &mut [0.0; 4]);
        assert!((sum - (5.0 + 1.0)).abs() < 1e-3, "{sum}");
        let values: Vec<f64> = (0..24).map(|at| f64::from((at * 7) % 11) / 10.0).collect();
        for sides in [&[12][..], &[3, 4], &[2, 2, 3]] {
            testing::agrees_with_differences(&values, |values, slopes| total_variation(sides, values, 1.0, slopes));
        }
        assert!(total_variation(&[], &[1.0, 5.0], 1.0, &mut [0.0; 2]) < 1e-3);
    }

    #[test]
    fn printable_colours_score_nothing() {
        let palette = Palette::default();
        let score = |value: f64| palette.non_printability(1, &[value], |_| true, 1.0, &mut [0.0]);
        assert_eq!((score(0.25), score(1.0)), (0.0, 0.0));
        assert!((score(0.125) - 0.125 * 0.125 * 0.375 * 0.625 * 0.875).abs() < 1e-12);
        // In colour: the distance is Euclidean over the channels.
        let colours = Palette(vec![vec![0.0, 0.0], vec![1.0, 0.5]]);
        let mut slopes = [0.0; 2];
        let sum = colours.non_printability(1, &[0.3, 0.4], |_| true, 1.0, &mut slopes);
        assert!((sum - 0.5 * (0.49_f64 + 0.01).sqrt()).abs() < 1e-12);
        let values: Vec<f64> = (0..6).map(|at| 0.13 + f64::from((at * 5) % 7) / 10.0).collect();
        testing::agrees_with_differences(&values, |values, slopes| {
            colours.non_printability(3, values, |place| place != 1, 1.0, slopes)
        });
    }

    #[test]
    fn unusable_palettes_are_refused() {
        for palette in [vec![], vec![vec![]], vec![vec![1.5]], vec![vec![f64::NAN]]] {
            assert!(Palette(palette).check().is_err());
        }
        assert!(Palette(vec![vec![0.0, 0.5, 1.0]]).check_channels(1).is_err());
        assert!(Palette::default().check_channels(3).is_ok());
    }
}
