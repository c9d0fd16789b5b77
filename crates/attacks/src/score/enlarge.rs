//! A coarse image as the variables of a search: fewer numbers than elements, each spread over a cell.

use nocebo_core::Domain;

use super::grid::Grid;
use super::questions::ranges;

/// From one variable a cell and channel to a change of the elements.
#[derive(Clone, Debug)]
pub(crate) struct Enlarge {
    grid: Grid,
    /// Cell of each position.
    cells: Vec<usize>,
    count: usize,
    ranges: Vec<f64>,
}

impl Enlarge {
    /// At most `most` cells along each side of the region's box; a feature of a table is a cell of its own.
    pub(crate) fn new(domain: &Domain, most: usize) -> Self {
        let grid = Grid::new(domain);
        let coarse = grid.coarse(most);
        Self { cells: grid.cells(&coarse), count: coarse.iter().product(), ranges: ranges(domain), grid }
    }

    /// Cells of all channels.
    pub(crate) fn variables(&self) -> usize {
        self.grid.channels() * self.count
    }

    /// Elements of a sample.
    pub(crate) fn elements(&self) -> usize {
        self.ranges.len()
    }

    /// Each element of the box with its variable.
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.grid.channels()).flat_map(move |channel| {
            let cells = self.cells.iter().enumerate();
            cells.map(move |(position, cell)| (self.grid.element(channel, position), channel * self.count + cell))
        })
    }

    /// The change of each element: its variable times its range, 0 outside the region.
    pub(crate) fn image(&self, variables: &[f64]) -> Vec<f64> {
        let mut image = vec![0.0; self.ranges.len()];
        for (element, variable) in self.places() {
            image[element] = variables[variable] * self.ranges[element];
        }
        image
    }

    /// L2 length of [`Enlarge::image`] in ranges.
    pub(crate) fn length(&self, variables: &[f64]) -> f64 {
        let parts = self.places().filter(|(element, _)| self.ranges[*element] > 0.0);
        parts.map(|(_, variable)| variables[variable] * variables[variable]).sum::<f64>().sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_spread_over_their_elements() {
        let region = (0..12).map(|element| element != 0).collect();
        let domain = Domain::grey_levels(&[1, 3, 4], 10.0).unwrap().with_region(region).unwrap();
        let enlarge = Enlarge::new(&domain, 2);
        let image = enlarge.image(&[1.0, 2.0, 3.0, 4.0]);
        let expected = [0.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0].map(|cell| cell * 10.0);
        assert_eq!((enlarge.variables(), image.as_slice()), (4, expected.as_slice()));
        let squares: f64 = expected.iter().map(|part| (part / 10.0).powi(2)).sum();
        assert!((enlarge.length(&[1.0, 2.0, 3.0, 4.0]) - squares.sqrt()).abs() < 1e-12);
        assert_eq!(Enlarge::new(&Domain::grey_levels(&[7], 1.0).unwrap(), 2).variables(), 7);
    }
}
