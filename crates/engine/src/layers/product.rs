//! Products of two computed values, matrix by matrix.

use super::{Backward, Forward, Layer};
use crate::kernels::{Factor, Sides, multiplied};

/// `matrices` products a sample: `[rows][inner] · [inner][columns]`.
pub(crate) struct Product {
    pub(crate) matrices: usize,
    pub(crate) sides: Sides,
}

impl Layer for Product {
    fn forward(&self, pass: Forward<'_>) {
        let [left, right] = [0, 1].map(|position| Factor { values: pass.inputs[position], transposed: false });
        multiplied(pass.set, self.matrices * pass.samples, self.sides, (left, right), pass.output, false);
    }

    fn backward(&self, pass: Backward<'_>) {
        let Sides { rows, inner, columns } = self.sides;
        let slope = Factor { values: pass.slope, transposed: false };
        let other = Factor { values: pass.inputs[1 - pass.position], transposed: true };
        let (sides, factors) = if pass.position == 0 {
            (Sides { rows, inner: columns, columns: inner }, (slope, other))
        } else {
            (Sides { rows: inner, inner: rows, columns }, (other, slope))
        };
        multiplied(pass.set, self.matrices * pass.samples, sides, factors, pass.gradient, pass.accumulate);
    }

    fn keeps_inputs(&self) -> bool {
        true
    }

    fn kernel(&self) -> String {
        let Sides { rows, inner, columns } = self.sides;
        format!("{} products {rows}x{inner} by {inner}x{columns}", self.matrices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{InstructionSet, checked};
    use crate::layers::tests::{agrees_with_f64, numbers};

    fn check(set: InstructionSet, sides: Sides) {
        let layer = Product { matrices: 2, sides };
        let Sides { rows, inner, columns } = sides;
        let inputs = [numbers(2 * 3 * rows * inner, 1), numbers(2 * 3 * inner * columns, 2)];
        agrees_with_f64(set, &layer, 3, &inputs, 2 * rows * columns, 1e-6, |inputs| {
            let mut result = Vec::new();
            for matrix in 0..2 {
                for row in 0..rows {
                    for column in 0..columns {
                        let term = |k: usize| {
                            inputs[0][(matrix * rows + row) * inner + k]
                                * inputs[1][(matrix * inner + k) * columns + column]
                        };
                        result.push((0..inner).map(term).sum());
                    }
                }
            }
            result
        });
    }

    const SHAPES: [Sides; 4] = [
        Sides { rows: 1, inner: 1, columns: 1 },
        Sides { rows: 17, inner: 16, columns: 33 },
        Sides { rows: 29, inner: 19, columns: 5 },
        Sides { rows: 3, inner: 40, columns: 64 },
    ];

    #[test]
    fn products_and_their_gradients_agree_with_f64() {
        for set in InstructionSet::available() {
            SHAPES.iter().for_each(|sides| check(set, *sides));
        }
    }

    #[test]
    fn the_kernel_does_not_leave_the_memory_it_was_handed() {
        let _turn = checked::begin();
        SHAPES.iter().for_each(|sides| check(InstructionSet::Checked, *sides));
    }
}
