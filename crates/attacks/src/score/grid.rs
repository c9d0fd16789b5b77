//! A sample as channels over space: windows, tiles, enlargement and cosines in any number of dimensions.

use rand::{Rng, RngExt};

use nocebo_core::Domain;

/// Where a sample may change: channels over the smallest box in space that holds the region of interest.
///
/// Positions count through the box, the last side fastest. A signal has one side, an image two, a volume three. The
/// features of a table have no neighbours, so a table is one channel whose positions are its mutable features.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    channels: usize,
    sides: Vec<usize>,
    /// Place in the channel of each position of the box.
    places: Vec<usize>,
    /// Elements of a whole channel.
    plane: usize,
    table: bool,
}

impl Grid {
    pub(crate) fn new(domain: &Domain) -> Self {
        let shape = domain.shape();
        let (channels, space) = (shape[0], &shape[1..]);
        if space.is_empty() {
            let places: Vec<usize> = (0..channels).filter(|&feature| domain.is_mutable(feature)).collect();
            return Self { channels: 1, sides: vec![places.len()], places, plane: channels, table: true };
        }
        let plane: usize = space.iter().product();
        let (mut first, mut last) = (space.to_vec(), vec![0; space.len()]);
        for element in (0..domain.elements()).filter(|&element| domain.is_mutable(element)) {
            for (axis, at) in coordinates(element % plane, space).into_iter().enumerate() {
                first[axis] = first[axis].min(at);
                last[axis] = last[axis].max(at + 1);
            }
        }
        let sides: Vec<usize> = first.iter().zip(&last).map(|(first, last)| last.saturating_sub(*first)).collect();
        let places = (0..sides.iter().product())
            .map(|position| {
                let inside = coordinates(position, &sides);
                flat(inside.iter().zip(&first).map(|(at, first)| at + first), space)
            })
            .collect();
        Self { channels, sides, places, plane, table: false }
    }

    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    pub(crate) fn sides(&self) -> &[usize] {
        &self.sides
    }

    /// Positions of the box.
    pub(crate) fn positions(&self) -> usize {
        self.places.len()
    }

    /// Whether positions are features without neighbours.
    pub(crate) fn is_table(&self) -> bool {
        self.table
    }

    /// Flat element of a position in a channel.
    pub(crate) fn element(&self, channel: usize, position: usize) -> usize {
        channel * self.plane + self.places[position]
    }

    /// Elements of all channels at `positions`, channel by channel.
    pub(crate) fn elements(&self, channel: usize, positions: &[usize]) -> Vec<usize> {
        positions.iter().map(|&position| self.element(channel, position)).collect()
    }

    /// The side, in elements, of a cube that holds `fraction` of the box; at least 1.
    pub(crate) fn side_of(&self, fraction: f64) -> usize {
        let side = (fraction * self.positions() as f64).powf(1.0 / self.sides.len() as f64);
        (side.round() as usize).max(1)
    }

    /// A random window with sides of `side` (less where the box is narrower): its sides and its positions. In a table
    /// the features are a random choice in random order.
    pub(crate) fn window(&self, side: usize, generator: &mut impl Rng) -> (Vec<usize>, Vec<usize>) {
        let sides: Vec<usize> = self.sides.iter().map(|&whole| side.min(whole)).collect();
        if self.table {
            let mut features: Vec<usize> = (0..self.positions()).collect();
            for place in 0..sides[0] {
                let other = generator.random_range(place..features.len());
                features.swap(place, other);
            }
            features.truncate(sides[0]);
            return (sides, features);
        }
        let corner: Vec<usize> =
            self.sides.iter().zip(&sides).map(|(whole, side)| generator.random_range(0..=whole - side)).collect();
        let positions = self.window_at(&corner, &sides);
        (sides, positions)
    }

    /// Positions of the window with this corner and these sides.
    pub(crate) fn window_at(&self, corner: &[usize], sides: &[usize]) -> Vec<usize> {
        (0..sides.iter().product())
            .map(|at| flat(coordinates(at, sides).iter().zip(corner).map(|(at, corner)| at + corner), &self.sides))
            .collect()
    }

    /// Windows side by side, each side at most a `parts`th of the box (at least one element), centred; whole windows
    /// only. The features of a table are windows of their own.
    pub(crate) fn tiles(&self, parts: usize) -> (Vec<usize>, Vec<Vec<usize>>) {
        let side = |whole: usize| if self.table { 1 } else { (whole / parts).max(1) };
        let sides: Vec<usize> = self.sides.iter().map(|&whole| side(whole)).collect();
        let counts: Vec<usize> = self.sides.iter().zip(&sides).map(|(whole, side)| whole / side).collect();
        let tiles = (0..counts.iter().product())
            .map(|tile| {
                let corner: Vec<usize> = coordinates(tile, &counts)
                    .iter()
                    .zip(&sides)
                    .zip(self.sides.iter().zip(&counts))
                    .map(|((at, side), (whole, count))| (whole - side * count) / 2 + at * side)
                    .collect();
                self.window_at(&corner, &sides)
            })
            .collect();
        (sides, tiles)
    }

    /// A coarser box: each side at most `side` cells.
    pub(crate) fn coarse(&self, side: usize) -> Vec<usize> {
        let most = |whole: usize| if self.table { whole } else { whole.min(side) };
        self.sides.iter().map(|&whole| most(whole)).collect()
    }

    /// A box of the lowest frequencies: this fraction of each side, at least one.
    pub(crate) fn low_frequencies(&self, ratio: f64) -> Vec<usize> {
        let kept = |whole: usize| if self.table { whole } else { ((whole as f64 * ratio).ceil() as usize).max(1) };
        self.sides.iter().map(|&whole| kept(whole).min(whole)).collect()
    }

    /// Normal noise of the frequencies below `kept`, for a sample of `elements` values; 0 outside the box. White noise
    /// where all frequencies are kept, and in a table, whose features have none.
    pub(crate) fn smooth_noise(&self, kept: &[usize], elements: usize, generator: &mut impl Rng) -> Vec<f64> {
        let mut noise = vec![0.0; elements];
        let white = kept == self.sides;
        for channel in 0..self.channels {
            let mut values: Vec<f64> = (0..self.positions())
                .map(|position| {
                    let low = white || coordinates(position, &self.sides).iter().zip(kept).all(|(at, kept)| at < kept);
                    if low { gaussian(generator) } else { 0.0 }
                })
                .collect();
            if !white {
                values = inverse_cosine(&values, &self.sides);
            }
            for (position, value) in values.into_iter().enumerate() {
                noise[self.element(channel, position)] = value;
            }
        }
        noise
    }

    /// The cell of a coarser box in which each position lies.
    pub(crate) fn cells(&self, coarse: &[usize]) -> Vec<usize> {
        (0..self.positions())
            .map(|position| {
                let at = coordinates(position, &self.sides);
                flat(at.iter().zip(&self.sides).zip(coarse).map(|((at, whole), cells)| at * cells / whole), coarse)
            })
            .collect()
    }
}

/// Coordinates of a flat index in a box.
pub(crate) fn coordinates(mut index: usize, sides: &[usize]) -> Vec<usize> {
    let mut at = vec![0; sides.len()];
    for (at, side) in at.iter_mut().zip(sides).rev() {
        *at = index % side;
        index /= side;
    }
    at
}

/// Flat index of coordinates in a box.
pub(crate) fn flat(at: impl Iterator<Item = usize>, sides: &[usize]) -> usize {
    at.zip(sides).fold(0, |index, (at, side)| index * side + at)
}

/// Applies a matrix given by `weights(line)` along one axis of a box: `line` maps `from` values to `to` values.
fn along_axis(
    values: &[f64],
    sides: &[usize],
    axis: usize,
    to: usize,
    line: impl Fn(&[f64], &mut [f64]),
) -> (Vec<f64>, Vec<usize>) {
    let from = sides[axis];
    let inner: usize = sides[axis + 1..].iter().product();
    let outer: usize = sides[..axis].iter().product();
    let mut result = vec![0.0; outer * to * inner];
    let (mut read, mut written) = (vec![0.0; from], vec![0.0; to]);
    for at in 0..outer {
        for offset in 0..inner {
            for (step, value) in read.iter_mut().enumerate() {
                *value = values[(at * from + step) * inner + offset];
            }
            line(&read, &mut written);
            for (step, value) in written.iter().enumerate() {
                result[(at * to + step) * inner + offset] = *value;
            }
        }
    }
    let mut sides = sides.to_vec();
    sides[axis] = to;
    (result, sides)
}

/// The inverse of the orthonormal cosine transform (DCT-II) of a box: from coefficients to values.
pub(crate) fn inverse_cosine(coefficients: &[f64], sides: &[usize]) -> Vec<f64> {
    let mut now = (coefficients.to_vec(), sides.to_vec());
    for (axis, &side) in sides.iter().enumerate() {
        let waves: Vec<Vec<f64>> = (0..side).map(|frequency| cosine(frequency, side)).collect();
        now = along_axis(&now.0, &now.1, axis, side, |read, written| {
            written.fill(0.0);
            for (coefficient, wave) in read.iter().zip(&waves).filter(|(coefficient, _)| **coefficient != 0.0) {
                for (value, wave) in written.iter_mut().zip(wave) {
                    *value += coefficient * wave;
                }
            }
        });
    }
    now.0
}

/// One orthonormal cosine of the given frequency.
fn cosine(frequency: usize, side: usize) -> Vec<f64> {
    let scale = if frequency == 0 { 1.0 } else { 2.0 };
    let norm = (scale / side as f64).sqrt();
    let angle = std::f64::consts::PI * frequency as f64 / side as f64;
    (0..side).map(|at| norm * (angle * (at as f64 + 0.5)).cos()).collect()
}

/// A normal random number (Box and Muller).
pub(crate) fn gaussian(generator: &mut impl Rng) -> f64 {
    let (a, b): (f64, f64) = (generator.random(), generator.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::Seed;

    fn grid(shape: &[usize]) -> Grid {
        Grid::new(&Domain::grey_levels(shape, 255.0).unwrap())
    }

    #[test]
    fn every_shape_has_its_elements() {
        for (shape, sides) in
            [(vec![5], vec![5]), (vec![2, 7], vec![7]), (vec![3, 4, 6], vec![4, 6]), (vec![1, 2, 3, 4], vec![2, 3, 4])]
        {
            let grid = grid(&shape);
            assert_eq!(grid.sides(), sides);
            let mut elements: Vec<usize> = (0..grid.channels())
                .flat_map(|channel| grid.elements(channel, &(0..grid.positions()).collect::<Vec<_>>()))
                .collect();
            elements.sort_unstable();
            assert_eq!(elements, (0..shape.iter().product()).collect::<Vec<_>>(), "{shape:?}");
        }
    }

    #[test]
    fn the_box_holds_the_region_of_interest() {
        let region = (0..24).map(|element| matches!(element, 8 | 15)).collect();
        let domain = Domain::grey_levels(&[1, 4, 6], 255.0).unwrap().with_region(region).unwrap();
        let grid = Grid::new(&domain);
        // (1, 2) and (2, 3)
        assert_eq!(grid.sides(), [2, 2]);
        assert_eq!(grid.elements(0, &[0, 1, 2, 3]), [8, 9, 14, 15]);
        let table = Domain::grey_levels(&[4], 9.0).unwrap().with_region(vec![false, true, false, true]).unwrap();
        assert_eq!(Grid::new(&table).elements(0, &[0, 1]), [1, 3]);
    }

    #[test]
    fn windows_lie_inside_and_reach_every_corner() {
        let grid = grid(&[1, 3, 5]);
        let mut corners = std::collections::BTreeSet::new();
        let mut generator = Seed(1).for_sample(0);
        for _ in 0..200 {
            let (sides, positions) = grid.window(2, &mut generator);
            assert_eq!((sides, positions.len()), (vec![2, 2], 4));
            assert_eq!([positions[1] - positions[0], positions[2] - positions[0]], [1, 5]);
            corners.insert(positions[0]);
        }
        assert_eq!(corners.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 5, 6, 7, 8]);
        let (sides, all) = grid.window(4, &mut generator);
        assert_eq!((sides, all.len()), (vec![3, 4], 12));
    }

    #[test]
    fn a_window_of_a_table_is_a_choice_of_features() {
        let grid = grid(&[9]);
        let (_, mut features) = grid.window(4, &mut Seed(1).for_sample(0));
        assert_ne!(features, [features[0], features[0] + 1, features[0] + 2, features[0] + 3]);
        features.sort_unstable();
        features.dedup();
        assert_eq!(features.len(), 4);
    }

    #[test]
    fn tiles_cover_the_box() {
        let (sides, tiles) = grid(&[1, 10, 5]).tiles(5);
        assert_eq!((sides, tiles.len()), (vec![2, 1], 25));
        let mut all = tiles.concat();
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        // 28 leaves a margin of one beyond five tiles of five.
        let (_, tiles) = grid(&[1, 28]).tiles(5);
        assert_eq!((tiles.len(), tiles[0][0], tiles[4][4]), (5, 1, 25));
        assert_eq!(grid(&[7]).tiles(5).1.len(), 7);
    }

    #[test]
    fn cosines_are_orthonormal() {
        let sides = [3, 4];
        let waves: Vec<Vec<f64>> = (0..12)
            .map(|frequency| {
                let mut coefficients = vec![0.0; 12];
                coefficients[frequency] = 1.0;
                inverse_cosine(&coefficients, &sides)
            })
            .collect();
        for (a, one) in waves.iter().enumerate() {
            for (b, other) in waves.iter().enumerate() {
                let product: f64 = one.iter().zip(other).map(|(one, other)| one * other).sum();
                assert!((product - f64::from(u8::from(a == b))).abs() < 1e-12, "{a} {b}: {product}");
            }
        }
        let grid = grid(&[2, 3, 4]);
        let noise = grid.smooth_noise(&[1, 2], 24, &mut Seed(1).for_sample(0));
        for channel in noise.chunks(12) {
            let kept = waves.iter().map(|wave| wave.iter().zip(channel).map(|(a, b)| a * b).sum::<f64>().abs() > 1e-9);
            // Frequencies (0, 0) and (0, 1).
            assert_eq!(kept.enumerate().filter(|(_, kept)| *kept).map(|(at, _)| at).collect::<Vec<_>>(), [0, 1]);
        }
        assert!(waves[0].iter().all(|value| (value - 1.0 / 12.0_f64.sqrt()).abs() < 1e-12));
    }
}
