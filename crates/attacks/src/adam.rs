//! Adam (Kingma & Ba, ICLR 2015, arXiv:1412.6980) for the variables of one sample.

/// Weight of the past in the running mean of the gradient.
const MEAN_DECAY: f64 = 0.9;
/// Weight of the past in the running mean of its square.
const SQUARE_DECAY: f64 = 0.999;
/// Added to the root of the mean square.
const FLOOR: f64 = 1e-8;

/// Running moments of a gradient.
#[derive(Clone, Debug)]
pub(crate) struct Adam {
    means: Vec<f64>,
    squares: Vec<f64>,
    steps: i32,
}

impl Adam {
    pub(crate) fn new(variables: usize) -> Self {
        Self { means: vec![0.0; variables], squares: vec![0.0; variables], steps: 0 }
    }

    /// Moves `variables` down the gradient by steps of about `step_size`.
    pub(crate) fn descend(&mut self, gradient: &[f64], step_size: f64, variables: &mut [f64]) {
        for (variable, part) in variables.iter_mut().zip(self.direction(gradient)) {
            *variable -= step_size * part;
        }
    }

    /// Takes in a gradient and gives the direction of the next step, with parts of magnitude about 1.
    pub(crate) fn direction(&mut self, gradient: &[f64]) -> Vec<f64> {
        self.note(gradient);
        let correction = 1.0 - MEAN_DECAY.powi(self.steps);
        self.means.iter().zip(self.scales()).map(|(mean, scale)| mean / correction / scale).collect()
    }

    fn note(&mut self, gradient: &[f64]) {
        self.steps = self.steps.saturating_add(1);
        for ((mean, square), slope) in self.means.iter_mut().zip(&mut self.squares).zip(gradient) {
            *mean = MEAN_DECAY * *mean + (1.0 - MEAN_DECAY) * slope;
            *square = SQUARE_DECAY * *square + (1.0 - SQUARE_DECAY) * slope * slope;
        }
    }

    /// What the last step divided each variable's mean gradient by.
    pub(crate) fn scales(&self) -> Vec<f64> {
        let correction = 1.0 - SQUARE_DECAY.powi(self.steps);
        self.squares.iter().map(|square| (square / correction).sqrt() + FLOOR).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_has_the_step_size_and_later_ones_follow_the_moments() {
        let mut adam = Adam::new(2);
        let mut variables = [0.0, 0.0];
        adam.descend(&[4.0, 0.0], 0.1, &mut variables);
        assert!((variables[0] + 0.1).abs() < 1e-9 && variables[1] == 0.0, "{variables:?}");
        adam.descend(&[-2.0, 0.0], 0.1, &mut variables);
        // mean (0.9·0.4 − 0.1·2)/0.19, square (0.999·0.016 + 0.001·4)/0.001999
        let expected = -0.1 - 0.1 * (0.16 / 0.19) / (0.019984_f64 / 0.001999).sqrt();
        assert!((variables[0] - expected).abs() < 1e-9, "{variables:?}");
    }
}
