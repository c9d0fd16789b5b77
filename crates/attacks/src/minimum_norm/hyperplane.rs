//! The least change that brings a linear function to a value inside bounds.

use nocebo_core::Norm;

/// The change of least norm (L1, L2 or Linf) with `slopes · change = gap` whose elements stay in `rooms` (at most 0 to
/// at least 0); as far as the rooms allow where they do not allow the gap.
///
/// ```text
/// Linf  every element moves by min(λ, room)      L2  by min(λ·|w|, room)      w the slopes, λ so that the gap is met
/// L1    the elements of greatest |w| go to the end of their rooms, one after another
/// ```
///
/// # Panics
///
/// For L0.
pub(crate) fn towards_hyperplane(norm: Norm, slopes: &[f64], gap: f64, rooms: &[(f64, f64)]) -> Vec<f64> {
    let moves: Vec<Move> = slopes
        .iter()
        .zip(rooms)
        .enumerate()
        .filter(|(_, (slope, _))| **slope != 0.0)
        .map(|(element, (slope, (low, high)))| {
            let up = (*slope > 0.0) == (gap > 0.0);
            Move { element, slope: slope.abs(), room: if up { *high } else { -low }, sign: if up { 1.0 } else { -1.0 } }
        })
        .collect();
    let mut change = vec![0.0; slopes.len()];
    let lengths = match norm {
        Norm::L0 => unreachable!("the least count of elements is not a convex problem"),
        Norm::L1 => greedy(&moves, gap.abs()),
        Norm::L2 => together(&moves, gap.abs(), |part| part.slope),
        Norm::Linf => together(&moves, gap.abs(), |_| 1.0),
    };
    for (part, length) in moves.iter().zip(lengths) {
        change[part.element] = part.sign * length;
    }
    change
}

/// How one element can move towards the gap.
struct Move {
    element: usize,
    slope: f64,
    room: f64,
    sign: f64,
}

fn greedy(moves: &[Move], gap: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..moves.len()).collect();
    order.sort_by(|&a, &b| moves[b].slope.total_cmp(&moves[a].slope).then(a.cmp(&b)));
    let mut lengths = vec![0.0; moves.len()];
    let mut left = gap;
    for index in order {
        let Move { slope, room, .. } = moves[index];
        lengths[index] = room.min(left / slope);
        left -= lengths[index] * slope;
        if left <= 0.0 {
            break;
        }
    }
    lengths
}

/// All elements move at their `speed` until their room ends.
fn together(moves: &[Move], gap: f64, speed: impl Fn(&Move) -> f64) -> Vec<f64> {
    let mut ends: Vec<(f64, usize)> =
        moves.iter().enumerate().map(|(index, part)| (part.room / speed(part), index)).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut rate: f64 = moves.iter().map(|part| part.slope * speed(part)).sum();
    let mut stopped = 0.0;
    let mut time = f64::INFINITY;
    for &(end, index) in &ends {
        if stopped + rate * end >= gap {
            time = (gap - stopped) / rate;
            break;
        }
        let part = &moves[index];
        stopped += part.slope * part.room;
        rate -= part.slope * speed(part);
    }
    moves.iter().map(|part| part.room.min(time * speed(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::minimum_norm::frame::size;
    use nocebo_core::Seed;
    use rand::RngExt;

    const FREE: [(f64, f64); 2] = [(-10.0, 10.0); 2];

    #[test]
    fn hand_computed_changes() {
        assert_eq!(towards_hyperplane(Norm::L2, &[3.0, -4.0], 50.0, &FREE), [6.0, -8.0]);
        assert_eq!(towards_hyperplane(Norm::Linf, &[3.0, -4.0], -14.0, &FREE), [-2.0, 2.0]);
        assert_eq!(towards_hyperplane(Norm::L1, &[3.0, -4.0], 46.0, &FREE), [2.0, -10.0]);
        // The second element may move by 1 only; the first takes the rest: (49 − 4)/3.
        let tight = [(-10.0, 20.0), (-1.0, 1.0)];
        assert_eq!(towards_hyperplane(Norm::L2, &[3.0, -4.0], 49.0, &tight), [15.0, -1.0]);
        assert_eq!(towards_hyperplane(Norm::Linf, &[3.0, -4.0], 49.0, &tight), [15.0, -1.0]);
    }

    #[test]
    fn a_gap_out_of_reach_goes_as_far_as_the_rooms() {
        for norm in [Norm::L1, Norm::L2, Norm::Linf] {
            let rooms = [(-1.0, 2.0), (-3.0, 4.0), (-1.0, 1.0)];
            assert_eq!(towards_hyperplane(norm, &[1.0, -1.0, 0.0], 1e9, &rooms), [2.0, -3.0, 0.0], "{norm}");
            assert_eq!(towards_hyperplane(norm, &[0.0; 3], 1.0, &rooms), [0.0; 3], "{norm}");
        }
    }

    #[test]
    fn the_gap_is_met_and_no_random_change_that_meets_it_is_smaller() {
        let mut generator = Seed(5).for_sample(0);
        let mut draw = |low: f64, high: f64| generator.random_range(low..high);
        for _ in 0..200 {
            let slopes: Vec<f64> = (0..5).map(|_| draw(-2.0, 2.0)).collect();
            let rooms: Vec<(f64, f64)> = (0..5).map(|_| (-draw(0.0, 1.0), draw(0.0, 1.0))).collect();
            let rival: Vec<f64> = rooms.iter().map(|(low, high)| draw(*low, *high)).collect();
            let gap: f64 = slopes.iter().zip(&rival).map(|(slope, part)| slope * part).sum();
            for norm in [Norm::L1, Norm::L2, Norm::Linf] {
                let change = towards_hyperplane(norm, &slopes, gap, &rooms);
                let met: f64 = slopes.iter().zip(&change).map(|(slope, part)| slope * part).sum();
                assert!((met - gap).abs() < 1e-9, "{norm} {met} {gap}");
                assert!(change.iter().zip(&rooms).all(|(part, (low, high))| (*low..=*high).contains(part)));
                assert!(size(norm, &change) <= size(norm, &rival) + 1e-9, "{norm}");
            }
        }
    }
}
