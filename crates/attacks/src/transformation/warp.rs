//! Resampling a sample at moved positions: linear interpolation along one axis, bilinear in an image, trilinear in a
//! volume, with the derivatives by the values and by the positions.
//!
//! ```text
//! out(q) = Σ_corners Π_axes (1 − |p_a(q) − corner_a|)·in(corner)       p(q) the position that q is read from
//! ```
//!
//! Positions count elements from 0 along each axis. Every channel is read at the same positions.

use nocebo_core::Error;

use super::Transformation;

/// What lies beyond the edge of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beyond {
    /// The nearest element of the edge.
    Edge,
    /// A constant value, such as air.
    Value(f32),
}

/// The position from which each element is read. Where as many elements come out as go in, it is a transformation of a
/// sample; otherwise it also resizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Warp {
    /// Sides of what is read.
    sides: Vec<usize>,
    positions: Vec<Vec<f32>>,
    beyond: Beyond,
}

/// The sides in space or time of samples of this shape.
///
/// # Errors
///
/// [`Error::Unsupported`] for a table, which has none, and for more than three.
pub fn sides_of<'a>(what: &str, shape: &'a [usize]) -> Result<&'a [usize], Error> {
    match shape.get(1..) {
        Some(sides) if (1..=3).contains(&sides.len()) => Ok(sides),
        _ => Err(Error::unsupported(
            format!("{what} on samples of shape {shape:?}"),
            "it needs a signal, an image or a volume: a channel axis and one to three axes in space or time",
        )),
    }
}

/// The place of each element of a channel along every axis: `[axis][element]`.
pub fn places(sides: &[usize]) -> Vec<Vec<f32>> {
    let plane: usize = sides.iter().product();
    (0..sides.len())
        .map(|axis| {
            let stride: usize = sides[axis + 1..].iter().product();
            (0..plane).map(|element| ((element / stride) % sides[axis]) as f32).collect()
        })
        .collect()
}

impl Warp {
    /// Reads element `e` of what comes out at `positions[axis][e]` of a channel with these sides.
    ///
    /// # Panics
    ///
    /// When there is not one row of positions an axis, or the rows have different lengths.
    pub fn new(sides: &[usize], positions: Vec<Vec<f32>>, beyond: Beyond) -> Self {
        assert!(positions.len() == sides.len() && positions.iter().all(|row| row.len() == positions[0].len()));
        Self { sides: sides.to_vec(), positions, beyond }
    }

    /// Resizes a channel, corner to corner.
    pub fn resize(from: &[usize], to: &[usize]) -> Self {
        let mut positions = places(to);
        for (axis, row) in positions.iter_mut().enumerate() {
            let ratio = (from[axis] as f32 - 1.0) / (to[axis] as f32 - 1.0).max(1.0);
            for position in row {
                *position *= ratio;
            }
        }
        Self::new(from, positions, Beyond::Edge)
    }

    /// Reads each element `flow[axis][e]` elements away from its own place; the edge goes on beyond the edge.
    ///
    /// # Panics
    ///
    /// As [`Warp::new`].
    pub fn by_flow(sides: &[usize], flow: &[Vec<f32>]) -> Self {
        let mut positions = places(sides);
        for (row, moves) in positions.iter_mut().zip(flow) {
            for (position, move_by) in row.iter_mut().zip(moves) {
                *position += move_by;
            }
        }
        Self::new(sides, positions, Beyond::Edge)
    }

    /// Elements of a channel that is read, and of one that comes out.
    fn planes(&self) -> (usize, usize) {
        (self.sides.iter().product(), self.positions[0].len())
    }

    /// Visits the corners of the cell around the position of `element`: `visit(source element, weight, derivative of
    /// the weight by the position on each axis)`. The source is `None` beyond the edge of a constant surrounding.
    fn corners(&self, element: usize, mut visit: impl FnMut(Option<usize>, f32, &[f32])) {
        let axes = self.sides.len();
        let mut low = [0_i64; 3];
        let mut fraction = [0.0_f32; 3];
        let mut moves = [1.0_f32; 3];
        for axis in 0..axes {
            let last = (self.sides[axis] - 1) as f32;
            let mut position = self.positions[axis][element];
            if self.beyond == Beyond::Edge && !(0.0..=last).contains(&position) {
                position = position.clamp(0.0, last);
                moves[axis] = 0.0;
            }
            // Two elements beyond the edge everything is the surrounding; no position can overflow an index.
            let position = position.clamp(-2.0, last + 2.0);
            low[axis] = position.floor() as i64;
            fraction[axis] = position - position.floor();
        }
        for corner in 0..1_usize << axes {
            let mut source = Some(0);
            let mut weight = 1.0;
            let mut slopes = [0.0_f32; 3];
            for axis in 0..axes {
                let up = corner >> axis & 1 == 1;
                let side = self.sides[axis] as i64;
                let mut place = low[axis] + i64::from(up);
                if self.beyond == Beyond::Edge {
                    place = place.min(side - 1);
                }
                source = source.filter(|_| (0..side).contains(&place)).map(|at| at * self.sides[axis] + place as usize);
                weight *= if up { fraction[axis] } else { 1.0 - fraction[axis] };
                slopes[axis] = (0..axes).fold(moves[axis], |slope, other| {
                    let up = corner >> other & 1 == 1;
                    slope
                        * match (other == axis, up) {
                            (true, true) => 1.0,
                            (true, false) => -1.0,
                            (false, true) => fraction[other],
                            (false, false) => 1.0 - fraction[other],
                        }
                });
            }
            visit(source, weight, &slopes[..axes]);
        }
    }

    /// The derivative of ⟨cotangent, apply(values)⟩ by the positions: `[axis][element]`, summed over the channels.
    ///
    /// # Panics
    ///
    /// When `values` and `cotangent` do not hold as many whole channels.
    pub fn pull_back_positions(&self, values: &[f32], cotangent: &[f32]) -> Vec<Vec<f32>> {
        let (read, plane) = self.planes();
        assert!(values.len().is_multiple_of(read) && values.len() / read * plane == cotangent.len());
        let surrounding = if let Beyond::Value(value) = self.beyond { value } else { 0.0 };
        let mut slopes = vec![vec![0.0; plane]; self.sides.len()];
        for element in 0..plane {
            self.corners(element, |source, _, by_axis| {
                let mut gain = 0.0;
                for (channel, slope) in values.chunks_exact(read).zip(cotangent.chunks_exact(plane)) {
                    gain += slope[element] * source.map_or(surrounding, |at| channel[at]);
                }
                for (row, slope) in slopes.iter_mut().zip(by_axis) {
                    row[element] += slope * gain;
                }
            });
        }
        slopes
    }
}

impl Transformation for Warp {
    fn apply(&self, values: &[f32]) -> Vec<f32> {
        let (read, plane) = self.planes();
        let surrounding = if let Beyond::Value(value) = self.beyond { value } else { 0.0 };
        let mut moved = vec![0.0; values.len() / read * plane];
        for element in 0..plane {
            self.corners(element, |source, weight, _| {
                for (out, channel) in moved.chunks_exact_mut(plane).zip(values.chunks_exact(read)) {
                    out[element] += weight * source.map_or(surrounding, |at| channel[at]);
                }
            });
        }
        moved
    }

    fn pull_back(&self, values: &[f32], cotangent: &[f32]) -> Vec<f32> {
        let (read, plane) = self.planes();
        let mut slopes = vec![0.0; values.len()];
        for element in 0..plane {
            self.corners(element, |source, weight, _| {
                let Some(at) = source else { return };
                for (slope, out) in slopes.chunks_exact_mut(read).zip(cotangent.chunks_exact(plane)) {
                    slope[at] += weight * out[element];
                }
            });
        }
        slopes
    }
}

/// Rotation, scaling and shift about the centre of a sample.
///
/// ```text
/// p(q) = c + s∘R(q − c) + t
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// Angle in radians in each plane of two axes: none for a signal, (0, 1) for an image, (0, 1), (0, 2), (1, 2) for a
    /// volume.
    pub angles: Vec<f64>,
    /// Factor on the distance from the centre at which an element is read, one an axis: above 1 shrinks the content.
    pub scales: Vec<f64>,
    /// How far away an element is read, in elements, one an axis.
    pub shifts: Vec<f64>,
}

impl Affine {
    /// The map that moves nothing.
    pub fn identity(axes: usize) -> Self {
        Self { angles: vec![0.0; planes(axes).len()], scales: vec![1.0; axes], shifts: vec![0.0; axes] }
    }

    /// The same map with its content moved so that the content's centre lies `place` elements from the sample's.
    ///
    /// # Panics
    ///
    /// When there is not one place an axis.
    pub fn centred_at(mut self, place: &[f64]) -> Self {
        let axes = self.scales.len();
        assert_eq!(place.len(), axes);
        let rotation = rotation(axes, &self.angles, None);
        for (axis, row) in rotation.iter().enumerate() {
            let turned: f64 = row.iter().zip(place).map(|(entry, part)| entry * part).sum();
            self.shifts[axis] -= self.scales[axis] * turned;
        }
        self
    }

    /// The warp of a channel with these sides.
    ///
    /// # Panics
    ///
    /// When the map was made for another number of axes.
    pub fn warp(&self, sides: &[usize], beyond: Beyond) -> Warp {
        assert_eq!(self.scales.len(), sides.len());
        let rotation = rotation(sides.len(), &self.angles, None);
        let centre: Vec<f64> = sides.iter().map(|side| (*side as f64 - 1.0) / 2.0).collect();
        let own = places(sides);
        let plane: usize = sides.iter().product();
        let mut positions = own.clone();
        for element in 0..plane {
            for (axis, row) in positions.iter_mut().enumerate() {
                let turned: f64 = (0..sides.len())
                    .map(|other| rotation[axis][other] * (f64::from(own[other][element]) - centre[other]))
                    .sum();
                row[element] = (centre[axis] + self.scales[axis] * turned + self.shifts[axis]) as f32;
            }
        }
        Warp::new(sides, positions, beyond)
    }

    /// The derivative by the angles, scales and shifts, from the derivative by the positions (`[axis][element]`).
    ///
    /// # Panics
    ///
    /// When the positions are not those of a channel with these sides.
    pub fn pull_back(&self, sides: &[usize], positions: &[Vec<f32>]) -> Self {
        let axes = sides.len();
        let centre: Vec<f64> = sides.iter().map(|side| (*side as f64 - 1.0) / 2.0).collect();
        let own = places(sides);
        // moment[axis][other] = Σ slope on this axis · place on the other: all that a linear map's derivative needs.
        let mut moment = vec![vec![0.0; axes]; axes];
        let mut shifts = vec![0.0; axes];
        for axis in 0..axes {
            for (element, slope) in positions[axis].iter().enumerate() {
                shifts[axis] += f64::from(*slope);
                for other in 0..axes {
                    moment[axis][other] += f64::from(*slope) * (f64::from(own[other][element]) - centre[other]);
                }
            }
        }
        let against = |matrix: &[Vec<f64>], axis: usize| -> f64 {
            (0..axes).map(|other| matrix[axis][other] * moment[axis][other]).sum()
        };
        let still = rotation(axes, &self.angles, None);
        let angles = (0..self.angles.len())
            .map(|plane| {
                let turning = rotation(axes, &self.angles, Some(plane));
                (0..axes).map(|axis| self.scales[axis] * against(&turning, axis)).sum()
            })
            .collect();
        Self { angles, scales: (0..axes).map(|axis| against(&still, axis)).collect(), shifts }
    }
}

/// The planes of two axes in which a sample can turn.
fn planes(axes: usize) -> Vec<(usize, usize)> {
    (0..axes).flat_map(|first| (first + 1..axes).map(move |second| (first, second))).collect()
}

/// The product of the rotations in all planes, or its derivative by the angle of one of them.
fn rotation(axes: usize, angles: &[f64], derivative: Option<usize>) -> Vec<Vec<f64>> {
    let unit = |axis: usize, other: usize| f64::from(u8::from(axis == other));
    let mut product: Vec<Vec<f64>> = (0..axes).map(|axis| (0..axes).map(|other| unit(axis, other)).collect()).collect();
    for (plane, ((first, second), angle)) in planes(axes).into_iter().zip(angles).enumerate() {
        let slope = derivative == Some(plane);
        let (diagonal, off) = if slope { (-angle.sin(), angle.cos()) } else { (angle.cos(), angle.sin()) };
        let entry = |row: usize, column: usize| match (row, column) {
            _ if row == column && (row == first || row == second) => diagonal,
            _ if (row, column) == (first, second) => -off,
            _ if (row, column) == (second, first) => off,
            _ if slope => 0.0,
            _ => unit(row, column),
        };
        product = product
            .iter()
            .map(|row| (0..axes).map(|column| (0..axes).map(|k| row[k] * entry(k, column)).sum()).collect())
            .collect();
    }
    product
}

#[cfg(test)]
mod tests {
    use super::super::testing::agrees_with_differences;
    use super::*;

    const SHAPES: [&[usize]; 3] = [&[5], &[3, 4], &[3, 2, 4]];

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 37) % 23) as f32 - 11.0).collect()
    }

    /// Positions off the grid, some beyond the edges.
    fn flow(sides: &[usize]) -> Vec<Vec<f32>> {
        let plane: usize = sides.iter().product();
        let step = |axis: usize, at: usize| ((axis * 31 + at * 17) % 19) as f32 / 7.3 - 1.21;
        (0..sides.len()).map(|axis| (0..plane).map(|at| step(axis, at)).collect()).collect()
    }

    #[test]
    fn hand_computed_values() {
        // Halfway between 1 and 3; a quarter beyond the last element; far away.
        let positions = vec![vec![0.5, 2.25, -9.0]];
        let edge = Warp::new(&[3], positions.clone(), Beyond::Edge);
        assert_eq!(edge.apply(&[1.0, 3.0, 8.0]), [2.0, 8.0, 1.0]);
        let air = Warp::new(&[3], positions, Beyond::Value(-1000.0));
        assert_eq!(air.apply(&[1.0, 3.0, 8.0]), [2.0, 0.75 * 8.0 - 250.0, -1000.0]);
        let image = Warp::new(&[2, 2], vec![vec![0.5; 4], vec![0.25; 4]], Beyond::Edge);
        // 0.5·(0.75·0 + 0.25·4) + 0.5·(0.75·8 + 0.25·20); the second channel by itself.
        assert_eq!(image.apply(&[0.0, 4.0, 8.0, 20.0, 1.0, 1.0, 1.0, 1.0])[3..5], [6.0, 1.0]);
    }

    #[test]
    fn no_flow_returns_the_same_bits() {
        for sides in SHAPES {
            let plane = sides.iter().product();
            let still = Warp::by_flow(sides, &vec![vec![0.0; plane]; sides.len()]);
            assert_eq!(still.apply(&values(2 * plane)), values(2 * plane));
            let identity = Affine::identity(sides.len()).warp(sides, Beyond::Value(7.0));
            assert_eq!(identity.apply(&values(plane)), values(plane));
        }
    }

    #[test]
    fn derivatives_agree_with_central_differences() {
        for sides in SHAPES {
            let plane: usize = sides.iter().product();
            let input = values(2 * plane);
            for beyond in [Beyond::Edge, Beyond::Value(3.0)] {
                let at = |flow: &[Vec<f32>]| Warp { beyond, ..Warp::by_flow(sides, flow) };
                agrees_with_differences(&at(&flow(sides)), &input, 0.5, 1e-3);
                let cotangent = values(2 * plane + 3)[3..].to_vec();
                let dot = |flow: &[Vec<f32>]| {
                    at(flow).apply(&input).iter().zip(&cotangent).map(|(a, b)| f64::from(a * b)).sum::<f64>()
                };
                let slopes = at(&flow(sides)).pull_back_positions(&input, &cotangent);
                for axis in 0..sides.len() {
                    for element in 0..plane {
                        let (mut up, mut down) = (flow(sides), flow(sides));
                        up[axis][element] += 1e-3;
                        down[axis][element] -= 1e-3;
                        let slope = (dot(&up) - dot(&down)) / 2e-3;
                        let ours = f64::from(slopes[axis][element]);
                        assert!(
                            (slope - ours).abs() < 0.2 + 1e-2 * ours.abs(),
                            "{sides:?} {axis} {element}: {slope} {ours}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn resizing_goes_from_corner_to_corner() {
        let up = Warp::resize(&[2], &[5]);
        assert_eq!(up.apply(&[0.0, 8.0, 1.0, 1.0]), [0.0, 2.0, 4.0, 6.0, 8.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(up.pull_back(&[0.0; 2], &[1.0, 0.0, 0.0, 4.0, 0.0]), [2.0, 3.0]);
        assert_eq!(Warp::resize(&[1, 2], &[3, 1]).apply(&[5.0, 7.0]), [5.0; 3]);
    }

    #[test]
    fn a_quarter_turn_turns() {
        let turn = Affine { angles: vec![std::f64::consts::FRAC_PI_2], ..Affine::identity(2) };
        let turned = turn.warp(&[2, 2], Beyond::Edge).apply(&[1.0, 2.0, 3.0, 4.0]);
        for (turned, expected) in turned.iter().zip([3.0, 1.0, 4.0, 2.0]) {
            assert!((turned - expected).abs() < 1e-5, "{turned} {expected}");
        }
    }

    type Part = fn(&mut Affine) -> &mut Vec<f64>;

    #[test]
    fn affine_derivatives_agree_with_central_differences() {
        for sides in SHAPES {
            let axes = sides.len();
            let base = Affine {
                angles: (0..planes(axes).len()).map(|at| 0.2 + 0.1 * at as f64).collect(),
                scales: (0..axes).map(|at| 1.1 - 0.15 * at as f64).collect(),
                shifts: (0..axes).map(|at| 0.3 - 0.2 * at as f64).collect(),
            };
            // Against a linear function of the positions themselves.
            let plane: usize = sides.iter().product();
            let slopes: Vec<Vec<f32>> = (0..axes).map(|axis| values(plane + axis)[axis..].to_vec()).collect();
            let value = |map: &Affine| -> f64 {
                let positions = map.warp(sides, Beyond::Edge).positions;
                positions.iter().flatten().zip(slopes.iter().flatten()).map(|(a, b)| f64::from(a * b)).sum()
            };
            let ours = base.pull_back(sides, &slopes);
            let parts: [Part; 3] = [|map| &mut map.angles, |map| &mut map.scales, |map| &mut map.shifts];
            for part in parts {
                for index in 0..part(&mut base.clone()).len() {
                    let at = |shift: f64| {
                        let mut map = base.clone();
                        part(&mut map)[index] += shift;
                        value(&map)
                    };
                    let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
                    let ours = part(&mut ours.clone())[index];
                    assert!((slope - ours).abs() < 1e-2 * (1.0 + slope.abs()), "{sides:?} {index}: {slope} {ours}");
                }
            }
        }
    }

    #[test]
    fn a_table_has_no_space() {
        let message = sides_of("a warp", &[7]).unwrap_err().to_string();
        assert!(message.contains("a warp on samples of shape [7]"), "{message}");
        assert!(sides_of("a warp", &[1, 2, 3, 4, 5]).is_err());
        assert_eq!(sides_of("a warp", &[2, 9]).unwrap(), [9]);
    }
}
