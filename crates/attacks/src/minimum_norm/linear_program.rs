//! The point of least L1 or Linf norm that satisfies linear inequalities inside bounds.

use nocebo_core::Norm;

use super::frame::size;
use super::hyperplane::towards_hyperplane;

/// A pivot smaller than this, in rows whose greatest entry is 1, counts as 0; so does a violation.
const NEGLIGIBLE: f64 = 1e-9;
/// Rounds of the search for the least Linf bound; each adds a new combination of the inequalities.
const ROUNDS: usize = 500;

/// `normal · v ≥ least`.
#[derive(Clone, Debug)]
pub(crate) struct Inequality {
    pub(crate) normal: Vec<f64>,
    pub(crate) least: f64,
}

/// The least norm (L1 or Linf) of a `v` that satisfies all inequalities inside `rooms` (at most 0 to at least 0), and such
/// a `v`; `None` when there is none. The norm is a lower bound even where rounding spoils the point.
///
/// L1 is a linear program, solved by the dual simplex method with bounds. For Linf only a bound t on all elements is
/// unknown: while no `v` satisfies the inequalities within t, the dual simplex gives a non-negative combination of them
/// that cannot be satisfied, and t grows to the least bound at which that one can.
///
/// # Panics
///
/// For L0 and L2.
pub(crate) fn least_norm(norm: Norm, rows: &[Inequality], rooms: &[(f64, f64)]) -> Option<(f64, Vec<f64>)> {
    let rows: Vec<Inequality> = rows.iter().filter_map(scaled).collect();
    if rows.iter().any(|row| row.normal.iter().all(|part| *part == 0.0) && row.least > NEGLIGIBLE) {
        return None;
    }
    match norm {
        Norm::L1 => least_sum(&rows, rooms),
        Norm::Linf => least_bound(&rows, rooms),
        Norm::L0 | Norm::L2 => unreachable!("only L1 and Linf are linear programs"),
    }
}

/// The inequality with a greatest entry of 1; `None` when it holds everywhere.
fn scaled(row: &Inequality) -> Option<Inequality> {
    let greatest = size(Norm::Linf, &row.normal);
    if greatest == 0.0 {
        return (row.least > 0.0).then(|| Inequality { normal: row.normal.clone(), least: f64::INFINITY });
    }
    let normal = row.normal.iter().map(|part| part / greatest).collect();
    Some(Inequality { normal, least: row.least / greatest })
}

fn least_sum(rows: &[Inequality], rooms: &[(f64, f64)]) -> Option<(f64, Vec<f64>)> {
    // v = up − down, both at least 0.
    let elements = rooms.len();
    let bounds = rooms.iter().map(|(_, high)| (0.0, *high)).chain(rooms.iter().map(|(low, _)| (0.0, -low))).collect();
    let normals: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| row.normal.iter().copied().chain(row.normal.iter().map(|part| -part)).collect())
        .collect();
    let least = rows.iter().map(|row| row.least).collect();
    let simplex = DualSimplex::new(normals, least, bounds, vec![1.0; 2 * elements]).solve().ok()?;
    let parts = simplex.structural();
    let found = (0..elements).map(|element| parts[element] - parts[element + elements]).collect();
    Some((parts.iter().sum(), found))
}

fn least_bound(rows: &[Inequality], rooms: &[(f64, f64)]) -> Option<(f64, Vec<f64>)> {
    let mut bound: f64 = 0.0;
    for row in rows {
        bound = bound.max(bound_of(row, rooms)?);
    }
    for _ in 0..ROUNDS {
        let within = rooms.iter().map(|(low, high)| (low.max(-bound), high.min(bound))).collect();
        let normals = rows.iter().map(|row| row.normal.clone()).collect();
        let least = rows.iter().map(|row| row.least).collect();
        match DualSimplex::new(normals, least, within, vec![0.0; rooms.len()]).solve() {
            Ok(simplex) => return Some((bound, simplex.structural())),
            Err(weights) => {
                let mut together = Inequality { normal: vec![0.0; rooms.len()], least: 0.0 };
                for (row, weight) in rows.iter().zip(weights) {
                    together.least += weight * row.least;
                    for (sum, part) in together.normal.iter_mut().zip(&row.normal) {
                        *sum += weight * part;
                    }
                }
                let next = bound_of(&together, rooms)?;
                if next <= bound * (1.0 + f64::EPSILON) {
                    break;
                }
                bound = next;
            }
        }
    }
    Some((bound, vec![0.0; rooms.len()]))
}

/// The least Linf norm that satisfies one inequality; `None` when the rooms do not allow it.
fn bound_of(row: &Inequality, rooms: &[(f64, f64)]) -> Option<f64> {
    if row.least <= 0.0 {
        return Some(0.0);
    }
    let found = towards_hyperplane(Norm::Linf, &row.normal, row.least, rooms);
    let met: f64 = row.normal.iter().zip(&found).map(|(slope, part)| slope * part).sum();
    (met >= row.least - NEGLIGIBLE * row.least.abs().max(1.0)).then(|| size(Norm::Linf, &found))
}

/// Minimises `costs · x` (at least 0 each) over `bounds` with `normals · x ≥ least`, from the vertex where every x has
/// its lower bound. Variables are the x and then one activity `normal · x` a row. Ties go to the lower index (Bland), so
/// that it ends.
struct DualSimplex {
    /// Each basic variable as a combination of the non-basic ones.
    rows: Vec<Vec<f64>>,
    basic: Vec<usize>,
    free: Vec<usize>,
    reduced_costs: Vec<f64>,
    bounds: Vec<(f64, f64)>,
    /// Value of each variable while it is not basic.
    resting: Vec<f64>,
    structural: usize,
}

impl DualSimplex {
    fn new(normals: Vec<Vec<f64>>, least: Vec<f64>, mut bounds: Vec<(f64, f64)>, costs: Vec<f64>) -> Self {
        let structural = bounds.len();
        bounds.extend(least.into_iter().map(|least| (least, f64::INFINITY)));
        let resting = bounds.iter().map(|(low, _)| *low).collect();
        Self {
            basic: (structural..bounds.len()).collect(),
            free: (0..structural).collect(),
            rows: normals,
            reduced_costs: costs,
            bounds,
            resting,
            structural,
        }
    }

    /// The optimal tableau, or weights of the rows (at least 0) whose combination cannot be satisfied.
    fn solve(mut self) -> Result<Self, Vec<f64>> {
        while let Some((row, target)) = self.leaving() {
            let Some(column) = self.entering(row, target > self.value(row)) else {
                return Err(self.certificate(row, target > self.value(row)));
            };
            self.pivot(row, column, target);
        }
        Ok(self)
    }

    fn value(&self, row: usize) -> f64 {
        self.rows[row].iter().zip(&self.free).map(|(part, &variable)| part * self.resting[variable]).sum()
    }

    /// The basic variable of lowest index outside its bounds, and the bound it must go to.
    fn leaving(&self) -> Option<(usize, f64)> {
        (0..self.rows.len())
            .filter_map(|row| {
                let (low, high) = self.bounds[self.basic[row]];
                let value = self.value(row);
                if value < low - NEGLIGIBLE * low.abs().max(1.0) {
                    Some((row, low))
                } else if value > high + NEGLIGIBLE * high.abs().max(1.0) {
                    Some((row, high))
                } else {
                    None
                }
            })
            .min_by_key(|(row, _)| self.basic[*row])
    }

    /// The non-basic variable that can move the basic one and keeps all reduced costs valid.
    fn entering(&self, row: usize, upwards: bool) -> Option<usize> {
        let mut best: Option<(f64, usize, usize)> = None;
        for (column, &variable) in self.free.iter().enumerate() {
            let part = self.rows[row][column];
            let (low, high) = self.bounds[variable];
            let at_lower = self.resting[variable] == low;
            let helps = low < high && part.abs() > NEGLIGIBLE && ((part > 0.0) == at_lower) == upwards;
            if helps {
                let candidate = ((self.reduced_costs[column] / part).abs(), variable, column);
                if best.is_none_or(|best| (candidate.0, candidate.1) < (best.0, best.1)) {
                    best = Some(candidate);
                }
            }
        }
        best.map(|(_, _, column)| column)
    }

    fn certificate(&self, row: usize, upwards: bool) -> Vec<f64> {
        let sign = if upwards { 1.0 } else { -1.0 };
        let mut weights = vec![0.0; self.rows.len()];
        for (part, &variable) in self.rows[row].iter().zip(&self.free) {
            if variable >= self.structural {
                weights[variable - self.structural] = (-sign * part).max(0.0);
            }
        }
        if self.basic[row] >= self.structural {
            weights[self.basic[row] - self.structural] = 1.0;
        }
        weights
    }

    fn pivot(&mut self, row: usize, column: usize, target: f64) {
        let leaving = std::mem::replace(&mut self.basic[row], self.free[column]);
        self.free[column] = leaving;
        self.resting[leaving] = target;
        let pivot = self.rows[row][column];
        let mut pivot_row: Vec<f64> = self.rows[row].iter().map(|part| -part / pivot).collect();
        pivot_row[column] = 1.0 / pivot;
        let substitute = |parts: &mut Vec<f64>| {
            let factor = parts[column];
            parts[column] = 0.0;
            for (part, pivot_part) in parts.iter_mut().zip(&pivot_row) {
                *part += factor * pivot_part;
            }
        };
        substitute(&mut self.reduced_costs);
        for (other, parts) in self.rows.iter_mut().enumerate() {
            if other != row {
                substitute(parts);
            }
        }
        self.rows[row] = pivot_row;
    }

    fn structural(&self) -> Vec<f64> {
        let mut values = self.resting.clone();
        for (row, &variable) in self.basic.iter().enumerate() {
            values[variable] = self.value(row);
        }
        values.truncate(self.structural);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::Seed;
    use rand::RngExt;

    fn row(normal: &[f64], least: f64) -> Inequality {
        Inequality { normal: normal.to_vec(), least }
    }

    #[test]
    fn hand_computed_minima() {
        let rooms = [(-10.0, 10.0); 2];
        // a + b ≥ 4 and a − b ≥ 2: L1 takes (4, 0), Linf (3, 1).
        let rows = [row(&[1.0, 1.0], 4.0), row(&[1.0, -1.0], 2.0)];
        assert_eq!(least_norm(Norm::L1, &rows, &rooms).unwrap().0, 4.0);
        let (bound, found) = least_norm(Norm::Linf, &rows, &rooms).unwrap();
        assert!((bound - 3.0).abs() < 1e-9 && (found[0] - 3.0).abs() < 1e-9, "{bound} {found:?}");
        // b may not exceed 1, so a has to.
        let tight = [(-10.0, 10.0), (-1.0, 1.0)];
        let (bound, found) = least_norm(Norm::Linf, &[row(&[1.0, 2.0], 7.0)], &tight).unwrap();
        assert!((bound - 5.0).abs() < 1e-9 && found[1] == 1.0, "{bound} {found:?}");
    }

    #[test]
    fn contradictions_have_no_solution() {
        let rooms = [(-1.0, 1.0); 2];
        for norm in [Norm::L1, Norm::Linf] {
            assert!(least_norm(norm, &[row(&[1.0, 1.0], 3.0)], &rooms).is_none());
            assert!(least_norm(norm, &[row(&[1.0, 0.0], 0.5), row(&[-1.0, 0.0], 0.5)], &rooms).is_none());
            assert!(least_norm(norm, &[row(&[0.0, 0.0], 0.5)], &rooms).is_none());
            assert_eq!(least_norm(norm, &[row(&[0.0, 0.0], -0.5)], &rooms).unwrap().0, 0.0);
        }
    }

    #[test]
    fn one_inequality_agrees_with_the_hyperplane_and_several_with_random_search() {
        let mut generator = Seed(9).for_sample(0);
        let mut draw = |low: f64, high: f64| generator.random_range(low..high);
        for round in 0..200 {
            let rooms: Vec<(f64, f64)> = (0..4).map(|_| (-draw(0.1, 1.0), draw(0.1, 1.0))).collect();
            let inside: Vec<f64> = rooms.iter().map(|(low, high)| draw(*low, *high)).collect();
            let rows: Vec<Inequality> = (0..1 + round % 4)
                .map(|_| {
                    let normal: Vec<f64> = (0..4).map(|_| draw(-1.0, 1.0)).collect();
                    let least = normal.iter().zip(&inside).map(|(a, b)| a * b).sum();
                    Inequality { normal, least }
                })
                .collect();
            for norm in [Norm::L1, Norm::Linf] {
                let (least, found) = least_norm(norm, &rows, &rooms).unwrap();
                let holds = |v: &[f64]| {
                    rows.iter().all(|row| {
                        row.normal.iter().zip(v).map(|(a, b)| a * b).sum::<f64>() >= row.least - 1e-7
                    })
                };
                assert!(holds(&found), "{norm} {found:?}");
                assert!((size(norm, &found) - least).abs() < 1e-7, "{norm} {found:?} {least}");
                assert!(least <= size(norm, &inside) + 1e-9, "{norm}");
                if rows.len() == 1 && rows[0].least > 0.0 {
                    let exact = towards_hyperplane(norm, &rows[0].normal, rows[0].least, &rooms);
                    assert!((size(norm, &exact) - least).abs() < 1e-9, "{norm}");
                }
                for _ in 0..50 {
                    let rival: Vec<f64> = rooms.iter().map(|(low, high)| draw(*low, *high)).collect();
                    let rows_hold =
                        rows.iter().all(|row| row.normal.iter().zip(&rival).map(|(a, b)| a * b).sum::<f64>() >= row.least);
                    assert!(!rows_hold || size(norm, &rival) >= least - 1e-9, "{norm}");
                }
            }
        }
    }
}
