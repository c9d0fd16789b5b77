//! A square picture of a physical quantity, with the drawing tools that phantoms share.

use rand::Rng;

use super::normal;

/// A quantity on a square grid; positions are in cm from the top left corner, `y` down.
#[derive(Clone, Debug)]
pub(crate) struct Canvas {
    side: usize,
    /// Width of a pixel in cm.
    pixel: f32,
    values: Vec<f32>,
}

/// A point of a tube in the picture plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    /// Position in cm.
    pub(crate) x: f32,
    /// Position in cm.
    pub(crate) y: f32,
    /// Radius in cm.
    pub(crate) radius: f32,
    /// Path of the beam through the tube, relative to a tube at right angles to the beam.
    pub(crate) weight: f32,
}

impl Canvas {
    /// A square of `width` cm whose value at (x, y) is `value(x, y)`.
    pub(crate) fn new(side: usize, width: f32, mut value: impl FnMut(f32, f32) -> f32) -> Self {
        let pixel = width / side as f32;
        let centre = |at: usize| (at as f32 + 0.5) * pixel;
        let values = (0..side * side).map(|at| value(centre(at % side), centre(at / side))).collect();
        Self { side, pixel, values }
    }

    /// Noise of about unit variance that varies over `scale` cm: random numbers on a grid, smoothly joined.
    pub(crate) fn noise(side: usize, width: f32, scale: f32, rng: &mut impl Rng) -> Self {
        let cells = (width / scale).ceil() as usize + 2;
        let grid: Vec<f32> = (0..cells * cells).map(|_| normal(rng, 0.0, 1.0)).collect();
        let (shift_x, shift_y) = (super::uniform(rng, 0.0, 1.0), super::uniform(rng, 0.0, 1.0));
        Self::new(side, width, |x, y| {
            let (u, v) = (x / scale + shift_x, y / scale + shift_y);
            let (column, row) = ((u as usize).min(cells - 2), (v as usize).min(cells - 2));
            let (a, b) = (smooth_step(u - column as f32), smooth_step(v - row as f32));
            let corner = |dy: usize, dx: usize| grid[(row + dy) * cells + column + dx];
            let top = corner(0, 0) * (1.0 - a) + corner(0, 1) * a;
            let bottom = corner(1, 0) * (1.0 - a) + corner(1, 1) * a;
            // Between grid points the weights square to about a half.
            1.4 * (top * (1.0 - b) + bottom * b)
        })
    }

    /// `[side, side]` values that are there already.
    pub(crate) fn from_values(side: usize, width: f32, values: Vec<f32>) -> Self {
        Self { side, pixel: width / side as f32, values }
    }

    /// The value at a point, between the pixels around it; outside, that of the border.
    pub(crate) fn at(&self, x: f32, y: f32) -> f32 {
        let place = |position: f32| (position / self.pixel - 0.5).clamp(0.0, (self.side - 1) as f32 - 1e-3);
        let (u, v) = (place(x), place(y));
        let (column, row, a, b) = (u as usize, v as usize, u.fract(), v.fract());
        let corner = |dy: usize, dx: usize| self.values[(row + dy) * self.side + column + dx];
        let (top, bottom) = (corner(0, 0) * (1.0 - a) + corner(0, 1) * a, corner(1, 0) * (1.0 - a) + corner(1, 1) * a);
        top * (1.0 - b) + bottom * b
    }

    pub(crate) fn side(&self) -> usize {
        self.side
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Adds a tube: `profile(distance / radius)` times radius times weight where the distance to the line through the
    /// nodes is below the radius. A tube thinner than a pixel keeps its area.
    pub(crate) fn add_tube(&mut self, nodes: &[Node], profile: impl Fn(f32) -> f32) {
        let Some(bounds) = self.bounds(nodes.iter().copied()) else { return };
        let [x0, x1, y0, y1] = bounds;
        let (columns, rows) = (x1 - x0, y1 - y0);
        let mut nearest = vec![(f32::INFINITY, 0.0f32); columns * rows];
        let thinnest = 0.7 * self.pixel;
        for pair in nodes.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let Some([a0, a1, b0, b1]) = self.bounds(pair.iter().copied()) else { continue };
            let (dx, dy) = (to.x - from.x, to.y - from.y);
            let length = (dx * dx + dy * dy).max(1e-9);
            for row in b0..b1 {
                for column in a0..a1 {
                    let (x, y) = ((column as f32 + 0.5) * self.pixel, (row as f32 + 0.5) * self.pixel);
                    let along = (((x - from.x) * dx + (y - from.y) * dy) / length).clamp(0.0, 1.0);
                    let (px, py) = (x - from.x - along * dx, y - from.y - along * dy);
                    let radius = from.radius + along * (to.radius - from.radius);
                    let drawn = radius.max(thinnest);
                    let distance = (px * px + py * py).sqrt() / drawn;
                    let cell = &mut nearest[(row - y0) * columns + column - x0];
                    if distance < cell.0 {
                        let weight = from.weight + along * (to.weight - from.weight);
                        *cell = (distance, weight * radius * radius / drawn);
                    }
                }
            }
        }
        for row in 0..rows {
            for column in 0..columns {
                let (distance, scale) = nearest[row * columns + column];
                if distance < 1.0 {
                    self.values[(row + y0) * self.side + column + x0] += scale * profile(distance);
                }
            }
        }
    }

    /// First and one-past-last column and row that a tube through the nodes can touch.
    fn bounds(&self, nodes: impl Iterator<Item = Node>) -> Option<[usize; 4]> {
        let (mut low, mut high) = ([f32::INFINITY; 2], [f32::NEG_INFINITY; 2]);
        for node in nodes {
            let reach = node.radius.max(self.pixel);
            for (axis, position) in [node.x, node.y].into_iter().enumerate() {
                low[axis] = low[axis].min(position - reach);
                high[axis] = high[axis].max(position + reach);
            }
        }
        let first = |position: f32| ((position / self.pixel).floor().max(0.0) as usize).min(self.side);
        let past = |position: f32| ((position / self.pixel).ceil().max(0.0) as usize).min(self.side);
        let [x0, x1, y0, y1] = [first(low[0]), past(high[0]), first(low[1]), past(high[1])];
        (x0 < x1 && y0 < y1).then_some([x0, x1, y0, y1])
    }

    /// Blurs with a bell of `sigma` cm: three running means in each direction, the border repeated.
    pub(crate) fn blur(&mut self, sigma: f32) {
        // A running mean over 2r + 1 pixels has the variance r(r + 1) / 3; three of them have three times that.
        let radius = ((0.25 + (sigma / self.pixel).powi(2)).sqrt() - 0.5).round() as usize;
        if radius == 0 {
            return;
        }
        let mut line = vec![0.0; self.side];
        for _ in 0..3 {
            for row in 0..self.side {
                let start = row * self.side;
                line.copy_from_slice(&self.values[start..start + self.side]);
                running_mean(&line, radius, |at, mean| self.values[start + at] = mean);
            }
            for column in 0..self.side {
                for (row, value) in line.iter_mut().enumerate() {
                    *value = self.values[row * self.side + column];
                }
                running_mean(&line, radius, |at, mean| self.values[at * self.side + column] = mean);
            }
        }
    }

    /// The mean of each `factor` x `factor` block.
    pub(crate) fn shrink(&self, factor: usize) -> Self {
        let side = self.side / factor;
        let mut values = vec![0.0; side * side];
        for row in 0..side * factor {
            for column in 0..side * factor {
                values[row / factor * side + column / factor] += self.values[row * self.side + column];
            }
        }
        for value in &mut values {
            *value /= (factor * factor) as f32;
        }
        Self { side, pixel: self.pixel * factor as f32, values }
    }
}

/// The pixels of which a share above `least` is covered; where something is covered, but no pixel that much, the one that is
/// covered most: a finding always has an outline.
pub(crate) fn outline(covered: &[f32], least: f32) -> Vec<bool> {
    let most = covered.iter().copied().fold(0.0, f32::max);
    if most > least || most == 0.0 {
        return covered.iter().map(|&share| share > least).collect();
    }
    let place = covered.iter().position(|&share| share == most);
    (0..covered.len()).map(|at| Some(at) == place).collect()
}

fn running_mean(line: &[f32], radius: usize, mut write: impl FnMut(usize, f32)) {
    let at = |position: isize| f64::from(line[position.clamp(0, line.len() as isize - 1) as usize]);
    let reach = radius as isize;
    let mut sum: f64 = (-reach..=reach).map(at).sum();
    for position in 0..line.len() as isize {
        write(position as usize, (sum / (2 * radius + 1) as f64) as f32);
        sum += at(position + reach + 1) - at(position - reach);
    }
}

/// 0 below 0, 1 above 1, smooth between.
pub(crate) fn smooth_step(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Relative chord of a round body whose edge lies at 0 and whose greatest thickness is reached at 1.
pub(crate) fn round_edge(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    (t * (2.0 - t)).sqrt()
}

#[cfg(test)]
mod tests {
    use nocebo_core::Seed;

    use super::*;

    #[test]
    fn a_tube_has_the_chord_of_a_cylinder_and_keeps_its_area_when_thin() {
        let node = |x, radius| Node { x, y: 5.0, radius, weight: 1.0 };
        let chord = |d: f32| 2.0 * (1.0 - d * d).sqrt();
        let mut canvas = Canvas::new(100, 10.0, |_, _| 0.0);
        canvas.add_tube(&[node(-1.0, 1.0), node(5.0, 1.0), node(11.0, 1.0)], chord);
        let column =
            |canvas: &Canvas, at: usize| (0..100).map(|row| canvas.values()[row * 100 + at]).sum::<f32>() * 0.1;
        // The pixel beside the axis lies 0.05 cm from it; the area of the cross section is pi.
        assert!((canvas.values()[50 * 100 + 50] - 2.0).abs() < 0.01);
        assert!((column(&canvas, 50) - std::f32::consts::PI).abs() < 0.05);
        assert_eq!(canvas.values()[20 * 100 + 50], 0.0);
        let mut thin = Canvas::new(100, 10.0, |_, _| 0.0);
        thin.add_tube(&[node(0.0, 0.01), node(10.0, 0.01)], chord);
        assert!((column(&thin, 50) - std::f32::consts::PI * 1e-4).abs() < 1e-4);
    }

    #[test]
    fn blurring_keeps_the_sum_and_has_the_wanted_width() {
        let mut canvas = Canvas::new(101, 101.0, |x, y| f32::from((x - 50.5).abs() < 0.5 && (y - 50.5).abs() < 0.5));
        canvas.blur(6.0);
        let sum: f32 = canvas.values().iter().sum();
        let variance: f32 =
            canvas.values().iter().zip(0..).map(|(value, at)| value * ((at % 101) as f32 - 50.0).powi(2)).sum();
        assert!((sum - 1.0).abs() < 1e-3 && (variance.sqrt() - 6.0).abs() < 0.5, "{sum} {variance}");
    }

    #[test]
    fn noise_has_mean_zero_and_variance_one_over_its_scale() {
        let noise = Canvas::noise(200, 200.0, 4.0, &mut Seed(1).for_sample(0));
        let mean = noise.values().iter().sum::<f32>() / 40_000.0;
        let variance = noise.values().iter().map(|v| v * v).sum::<f32>() / 40_000.0;
        assert!(mean.abs() < 0.1 && (0.7..1.3).contains(&variance), "{mean} {variance}");
        let steps = noise.values().windows(2).map(|pair| (pair[0] - pair[1]).powi(2)).sum::<f32>() / 40_000.0;
        assert!(steps < 0.3 * variance, "{steps}");
    }

    #[test]
    fn a_value_between_pixels_is_their_mix() {
        let canvas = Canvas::new(4, 4.0, |x, y| x + 10.0 * y);
        assert!((canvas.at(2.2, 1.7) - 19.2).abs() < 1e-4 && canvas.at(-5.0, 9.0) > 34.0);
    }

    #[test]
    fn what_covers_no_pixel_enough_has_one() {
        assert_eq!(outline(&[0.1, 0.6, 0.5, 0.7], 0.5), [false, true, false, true]);
        assert_eq!(outline(&[0.0, 0.2, 0.3, 0.3], 0.5), [false, false, true, false]);
        assert_eq!(outline(&[0.0; 3], 0.5), [false; 3]);
    }

    #[test]
    fn shrinking_takes_means() {
        let canvas = Canvas::new(4, 4.0, |x, y| x + 10.0 * y);
        assert_eq!(canvas.shrink(2).values(), [11.0, 13.0, 31.0, 33.0]);
    }
}
