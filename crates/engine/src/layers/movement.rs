//! Layers that only move elements: transposes, parts, joins, borders, repeats.

use rayon::prelude::*;

use super::{Backward, Forward, Layer};

/// Consecutive elements that move together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    from: usize,
    to: usize,
    length: usize,
}

/// Where the elements of one input go.
#[derive(Clone, Debug)]
enum Route {
    /// Matrices `[rows][columns]` that become `[columns][rows]`; how many, one after the other.
    Transpose {
        matrices: usize,
        rows: usize,
        columns: usize,
    },
    Stretches(Vec<Stretch>),
}

/// Elements of the output taken from the inputs, or constant.
pub(crate) struct Move {
    routes: Vec<Route>,
    /// Elements of an output sample that come from no input, and everything else as 0; empty where all come from inputs.
    template: Vec<f32>,
    /// Elements of an output sample.
    elements: usize,
}

/// Which element of which input an output element is; `None` for a constant.
pub(crate) type Origin = Option<(usize, usize)>;

impl Move {
    /// From the origin of each output element, with the constants of those that have none.
    pub(crate) fn new(inputs: usize, origins: &[Origin], constants: &[f32]) -> Self {
        let mut stretches = vec![Vec::<Stretch>::new(); inputs];
        for (to, origin) in origins.iter().enumerate() {
            let Some((input, from)) = *origin else { continue };
            match stretches[input].last_mut() {
                Some(last) if last.from + last.length == from && last.to + last.length == to => last.length += 1,
                _ => stretches[input].push(Stretch { from, to, length: 1 }),
            }
        }
        let template = if origins.iter().all(Option::is_some) { Vec::new() } else { constants.to_vec() };
        let routes = stretches
            .into_iter()
            .map(|stretches| transpose(&stretches, origins).unwrap_or(Route::Stretches(stretches)));
        Self { routes: routes.collect(), template, elements: origins.len() }
    }

    /// Stretches in all: fewer are faster.
    pub(crate) fn cost(origins: &[Origin]) -> usize {
        let follows = |pair: &[Origin]| match (pair[0], pair[1]) {
            (Some((a, from)), Some((b, next))) => a == b && from + 1 == next,
            (None, None) => true,
            _ => false,
        };
        1 + origins.windows(2).filter(|pair| !follows(pair)).count()
    }
}

/// The transposition that the stretches are, if they are one.
fn transpose(stretches: &[Stretch], origins: &[Origin]) -> Option<Route> {
    let elements = origins.len();
    if elements < 16 || stretches.len() < elements || origins.first() != Some(&Some((0, 0))) {
        return None;
    }
    // Rows of the output are columns of the input: the step between neighbours is the length of an input row.
    let columns = stretches[1].from;
    let rows = (1..elements).take_while(|&at| stretches[at].from == at * columns).count() + 1;
    let size = rows * columns;
    if columns < 2 || size == 0 || !elements.is_multiple_of(size) {
        return None;
    }
    let fits = stretches.iter().enumerate().all(|(at, stretch)| {
        let (matrix, inside) = (at / size, at % size);
        stretch.from == matrix * size + inside % rows * columns + inside / rows
    });
    fits.then_some(Route::Transpose { matrices: elements / size, rows, columns })
}

/// Writes or adds `[rows][columns]` as `[columns][rows]`, block by block.
fn transposed(from: &[f32], to: &mut [f32], rows: usize, columns: usize, accumulate: bool) {
    const BLOCK: usize = 32;
    for row in (0..rows).step_by(BLOCK) {
        for column in (0..columns).step_by(BLOCK) {
            for column in column..columns.min(column + BLOCK) {
                for row in row..rows.min(row + BLOCK) {
                    let value = from[row * columns + column];
                    let target = &mut to[column * rows + row];
                    *target = if accumulate { *target + value } else { value };
                }
            }
        }
    }
}

impl Layer for Move {
    fn forward(&self, pass: Forward<'_>) {
        let samples = pass.samples.max(1);
        pass.output.par_chunks_exact_mut(self.elements).enumerate().for_each(|(sample, output)| {
            output[..self.template.len()].copy_from_slice(&self.template);
            for (route, input) in self.routes.iter().zip(pass.inputs) {
                let input = &input[input.len() / samples * sample..][..input.len() / samples];
                match route {
                    Route::Transpose { matrices, rows, columns } => {
                        let size = rows * columns;
                        for matrix in 0..*matrices {
                            let range = matrix * size..(matrix + 1) * size;
                            transposed(&input[range.clone()], &mut output[range], *rows, *columns, false);
                        }
                    }
                    Route::Stretches(stretches) => {
                        for &Stretch { from, to, length } in stretches {
                            output[to..to + length].copy_from_slice(&input[from..from + length]);
                        }
                    }
                }
            }
        });
    }

    fn backward(&self, pass: Backward<'_>) {
        let size = pass.gradient.len() / pass.samples.max(1);
        let slopes = pass.slope.par_chunks_exact(self.elements);
        pass.gradient.par_chunks_exact_mut(size).zip(slopes).for_each(|(gradient, slope)| {
            match &self.routes[pass.position] {
                Route::Transpose { matrices, rows, columns } => {
                    let size = rows * columns;
                    if !pass.accumulate {
                        // What the transposes leave out of the input.
                        gradient[matrices * size..].fill(0.0);
                    }
                    for matrix in 0..*matrices {
                        let range = matrix * size..(matrix + 1) * size;
                        let (from, to) = (&slope[range.clone()], &mut gradient[range]);
                        transposed(from, to, *columns, *rows, pass.accumulate);
                    }
                }
                Route::Stretches(stretches) => {
                    if !pass.accumulate {
                        gradient.fill(0.0);
                    }
                    for &Stretch { from, to, length } in stretches {
                        let pairs = gradient[from..from + length].iter_mut().zip(&slope[to..to + length]);
                        pairs.for_each(|(gradient, slope)| *gradient += slope);
                    }
                }
            }
        });
    }

    fn kernel(&self) -> String {
        let stretches = |route: &Route| match route {
            Route::Transpose { .. } => "a transpose".to_owned(),
            Route::Stretches(stretches) => format!("{} stretches", stretches.len()),
        };
        format!("move of {}", self.routes.iter().map(stretches).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Buffer, InstructionSet};

    /// Forward and backward of one input, `samples` times.
    fn both(layer: &Move, input: &[f32], slope: &[f32], samples: usize) -> (Vec<f32>, Vec<f32>) {
        let (set, mut memory) = (InstructionSet::Portable, Buffer::default());
        let mut output = vec![f32::NAN; slope.len()];
        layer.forward(Forward {
            set,
            samples,
            inputs: &[input],
            output: &mut output,
            saved: &mut [],
            rectified: None,
            memory: &mut memory,
        });
        let mut gradient = vec![f32::NAN; input.len()];
        layer.backward(Backward {
            set,
            samples,
            inputs: &[&[]],
            output: &[],
            saved: &[],
            slope,
            position: 0,
            gradient: &mut gradient,
            accumulate: false,
            passing: None,
            memory: &mut memory,
        });
        (output, gradient)
    }

    #[test]
    fn a_transpose_of_a_part_leaves_no_gradient_elsewhere() {
        // The first 5 of 6 rows of 4, transposed.
        let origins: Vec<Origin> = (0..20).map(|at| Some((0, at % 5 * 4 + at / 5))).collect();
        let layer = Move::new(1, &origins, &[]);
        assert!(matches!(layer.routes[0], Route::Transpose { matrices: 1, rows: 5, columns: 4 }));
        let input: Vec<f32> = (0..48).map(|value| value as f32).collect();
        let slope: Vec<f32> = (0..40).map(|value| value as f32).collect();
        let (output, gradient) = both(&layer, &input, &slope, 2);
        assert_eq!((output[1], output[5], output[21]), (4.0, 1.0, 28.0));
        assert_eq!((gradient[1], gradient[4], &gradient[20..25]), (5.0, 1.0, &[0.0, 0.0, 0.0, 0.0, 20.0][..]));
    }

    #[test]
    fn repeats_add_their_gradients_and_constants_have_none() {
        let layer = Move::new(1, &[Some((0, 1)), None, Some((0, 1))], &[0.0, 7.0, 0.0]);
        let (output, gradient) = both(&layer, &[3.0, 4.0], &[1.0, 10.0, 100.0], 1);
        assert_eq!((output, gradient), (vec![4.0, 7.0, 4.0], vec![0.0, 101.0]));
    }
}
