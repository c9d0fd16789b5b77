//! Adam (Kingma & Ba, ICLR 2015, arXiv:1412.6980, algorithm 1) on one row of values.

/// First and second moments of the gradients of one row.
pub(crate) struct Adam {
    first: Vec<f64>,
    second: Vec<f64>,
    steps: i32,
}

/// Decay of the mean and of the mean square; the paper's.
const DECAY: [f64; 2] = [0.9, 0.999];
/// Keeps the quotient finite; the paper's.
const LEAST: f64 = 1e-8;

impl Adam {
    pub(crate) fn new(elements: usize) -> Self {
        Self { first: vec![0.0; elements], second: vec![0.0; elements], steps: 0 }
    }

    /// Takes in one gradient and gives the direction `m̂/(√v̂ + 10⁻⁸)` to go along (ascent) or against (descent).
    pub(crate) fn direction(&mut self, gradient: impl IntoIterator<Item = f64>) -> Vec<f32> {
        self.steps = self.steps.saturating_add(1);
        let [first_left, second_left] = DECAY.map(|decay| 1.0 - decay.powi(self.steps));
        let moments = self.first.iter_mut().zip(&mut self.second);
        moments
            .zip(gradient)
            .map(|((first, second), slope)| {
                *first = DECAY[0] * *first + (1.0 - DECAY[0]) * slope;
                *second = DECAY[1] * *second + (1.0 - DECAY[1]) * slope * slope;
                (*first / first_left / ((*second / second_left).sqrt() + LEAST)) as f32
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_directions_by_hand() {
        let mut adam = Adam::new(3);
        let first = adam.direction([2.0, -0.5, 0.0]);
        assert!((first[0] - 1.0).abs() < 1e-6 && (first[1] + 1.0).abs() < 1e-6 && first[2] == 0.0);
        // m̂ = (0.9·0.2 − 0.1)/0.19, v̂ = (0.999·0.004 + 0.001)/0.001999
        let second = adam.direction([-1.0, 0.0, 0.0]);
        let expected = (0.08 / 0.19) / (0.004_996_f64 / 0.001_999).sqrt();
        assert!((f64::from(second[0]) - expected).abs() < 1e-6, "{} {expected}", second[0]);
    }
}
