//! The slope of an objective from pairs of questions on both sides of a point.

use nocebo_core::{Error, Samples};

use super::questions::{Questions, along};

/// What one estimate needs.
pub(crate) struct Pairs<'a> {
    /// Where each row stands.
    pub(crate) points: &'a Samples,
    /// Distance between the bounds of each element; 0 where nothing may change.
    pub(crate) ranges: &'a [f64],
    /// Pairs a row.
    pub(crate) count: u32,
    /// Distance d to both sides, in ranges.
    pub(crate) distance: f64,
}

impl Pairs<'_> {
    /// Mean over the pairs of (L(x + d·u) − L(x − d·u))/2d · u, for u drawn by `draw(row)` with mean square 1; the
    /// slope by the values themselves. Zero where not one pair could be paid.
    ///
    /// What the bounds cut off a displacement is cut off its u as well.
    pub(crate) fn slopes(
        &self,
        questions: &mut Questions<'_>,
        rows: &[usize],
        mut draw: impl FnMut(usize) -> Vec<f64>,
    ) -> Result<Vec<Vec<f64>>, Error> {
        let elements = self.ranges.len();
        let mut sums = vec![vec![0.0; elements]; rows.len()];
        let mut counts = vec![0_u32; rows.len()];
        // The answer at x + d·u, until that at x − d·u comes.
        let mut first: Vec<Option<(f32, Vec<f32>)>> = vec![None; rows.len()];
        let jobs = (0..rows.len()).flat_map(|job| std::iter::repeat_n(job, self.count as usize));
        let requests = jobs.flat_map(|job| {
            let mut direction = draw(rows[job]);
            direction.iter_mut().zip(self.ranges).for_each(|(part, range)| *part *= range);
            let point = |side: f64| along(self.points.row(rows[job]), side * self.distance, &direction);
            [(rows[job], point(1.0), job), (rows[job], point(-1.0), job)]
        });
        questions.stream(requests, |_, job, reply| {
            let Some(reply) = reply else { return };
            let Some((value, point)) = first[job].take() else {
                first[job] = Some((reply.value, reply.point.to_vec()));
                return;
            };
            counts[job] += 1;
            let rise = (f64::from(value) - f64::from(reply.value)) / (2.0 * self.distance);
            let sides = point.iter().zip(reply.point).zip(self.ranges);
            for (sum, ((above, below), range)) in
                sums[job].iter_mut().zip(sides).filter(|(_, (_, range))| **range > 0.0)
            {
                let part = (f64::from(*above) - f64::from(*below)) / (2.0 * self.distance * range);
                *sum += rise * part / range;
            }
        })?;
        for (sum, count) in sums.iter_mut().zip(counts) {
            sum.iter_mut().for_each(|part| *part /= f64::from(count.max(1)));
        }
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::grid::gaussian;
    use crate::score::questions::{generators, ranges};
    use nocebo_core::{AttackProblem, Goal, Loss, Model, Norm, Oracle, Seed, ThreatModel};
    use nocebo_testkit::suite;

    #[test]
    fn many_pairs_give_the_gradient_of_a_linear_model() {
        let (model, inputs) = (suite::linear_binary(), suite::ct_samples().select(&[2, 5]));
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let region = (0..12).map(|element| element != 4).collect();
        let domain = model.spec().domain.clone().with_region(region).unwrap();
        let threat = ThreatModel::new(Norm::L2, 1.0, domain).unwrap();
        let oracle = Oracle::new(&model, None);
        let problem = AttackProblem { oracle: &oracle, inputs: &inputs, goal: &goal, threat: &threat, seed: Seed(1) };
        let (mut questions, mut generators) =
            (Questions::scored(&problem, 10_000, Loss::Margin).unwrap(), generators(&problem));
        let ranges = ranges(threat.domain());
        let pairs = Pairs { points: &inputs, ranges: &ranges, count: 4000, distance: 1e-3 };
        let draw = |row: usize| (0..12).map(|_| gaussian(&mut generators[row])).collect();
        let slopes = pairs.slopes(&mut questions, &[0, 1], draw).unwrap();
        for (row, slope) in slopes.iter().enumerate() {
            let sign = if model.logits(inputs.row(row))[0] > 0.0 { -1.0 } else { 1.0 };
            for (element, slope) in slope.iter().enumerate() {
                let weight = f64::from(((element * 5 + 3) % 11) as f32 / 5.0 - 1.1);
                let expected = if element == 4 { 0.0 } else { sign * weight };
                // ‖w‖/√4000 is 0.04.
                assert!((slope - expected).abs() < 0.15, "{row} {element}: {slope} {expected}");
            }
        }
        assert_eq!(questions.left(0), 2000);
    }
}
