//! Windows that see each channel alone: max-pools and depthwise convolutions, in both directions.

use super::finish::{Finish, Sink, read};
use super::isa::{InstructionSet, Isa, entry};
use super::parallel::parallel;

/// Which places of one axis meet which places of the other side, and through which tap.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// Where the entries of each place begin; one more than there are places.
    starts: Vec<usize>,
    /// Place on the other side, and tap.
    entries: Vec<(usize, usize)>,
    /// Places on the other side.
    side: usize,
    taps: usize,
}

impl Reach {
    /// For each of `places` windows, the source places inside `0..side` that its taps see.
    pub(crate) fn forward(
        places: usize,
        side: usize,
        taps: usize,
        stride: usize,
        dilation: usize,
        before: isize,
    ) -> Self {
        let (mut starts, mut entries) = (vec![0], Vec::new());
        for place in 0..places {
            for tap in 0..taps {
                let at = (place * stride + tap * dilation) as isize - before;
                if at >= 0 && (at as usize) < side {
                    entries.push((at as usize, tap));
                }
            }
            starts.push(entries.len());
        }
        Self { starts, entries, side, taps }
    }

    /// The same relation seen from the source.
    pub(crate) fn reversed(&self) -> Self {
        let places = self.starts.len() - 1;
        let mut met: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.side];
        for place in 0..places {
            for &(at, tap) in &self.entries[self.starts[place]..self.starts[place + 1]] {
                met[at].push((place, tap));
            }
        }
        let (mut starts, mut entries) = (vec![0], Vec::new());
        for list in met {
            entries.extend(list);
            starts.push(entries.len());
        }
        Self { starts, entries, side: places, taps: self.taps }
    }

    fn places(&self) -> usize {
        self.starts.len() - 1
    }

    /// For each place, what it meets: place on the other side, and tap.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[(usize, usize)]> {
        (0..self.places()).map(|place| self.of(place))
    }

    #[inline(always)]
    fn of(&self, place: usize) -> &[(usize, usize)] {
        &self.entries[self.starts[place]..self.starts[place + 1]]
    }
}

/// Windows over three axes of space with `channels` channels.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    /// One relation an axis.
    pub(crate) axes: [Reach; 3],
    /// Channels.
    pub(crate) channels: usize,
}

/// What a window makes of what it sees.
#[derive(Clone, Copy)]
enum Purpose<'a> {
    /// The greatest value, and which tap it came from.
    Greatest(*mut u8),
    /// The sum of the gradients of those windows whose tap is this place.
    Chosen(&'a [u8]),
    /// The sum weighted by `[tap][channel]`.
    Weighted(&'a [f32]),
}

#[derive(Clone, Copy)]
struct Task<'a> {
    windows: &'a Windows,
    source: &'a [f32],
    sink: &'a Sink,
    purpose: Purpose<'a>,
    /// Sample and places along the first two axes.
    row: [usize; 3],
}

// SAFETY: the pointer in a purpose is written by each task for its own places.
unsafe impl Sync for Purpose<'_> {}
// SAFETY: as above.
unsafe impl Send for Purpose<'_> {}

/// Tap of a place whose window saw nothing.
const NO_TAP: u8 = u8::MAX;

/// Most taps of a max-pool: a tap is one byte.
pub(crate) const MOST_TAPS: usize = NO_TAP as usize;

impl Windows {
    /// The same windows seen from the source.
    pub(crate) fn reversed(&self) -> Self {
        Self { axes: std::array::from_fn(|axis| self.axes[axis].reversed()), channels: self.channels }
    }

    /// Taps of a window.
    pub(crate) fn taps(&self) -> usize {
        self.axes.iter().map(|axis| axis.taps).product()
    }

    fn places(&self) -> usize {
        self.axes.iter().map(Reach::places).product()
    }

    fn sides(&self) -> usize {
        self.axes.iter().map(|axis| axis.side).product()
    }

    /// Greatest value of each window; `taps` gets where it came from, a byte a result.
    pub(crate) fn greatest(
        &self,
        set: InstructionSet,
        samples: usize,
        source: &[f32],
        output: &mut [f32],
        taps: &mut [u8],
        finish: Finish<'_>,
    ) {
        assert!(self.taps() <= MOST_TAPS);
        assert_eq!(taps.len(), output.len());
        #[cfg(test)]
        super::checked::allow(taps);
        self.run(set, samples, source, output, Purpose::Greatest(taps.as_mut_ptr()), finish);
    }

    /// Gradient of [`Windows::greatest`]: on [`Windows::reversed`], from the gradient of its output.
    pub(crate) fn chosen(
        &self,
        set: InstructionSet,
        samples: usize,
        source: &[f32],
        output: &mut [f32],
        taps: &[u8],
        finish: Finish<'_>,
    ) {
        assert_eq!(taps.len(), source.len());
        #[cfg(test)]
        super::checked::allow(taps);
        self.run(set, samples, source, output, Purpose::Chosen(taps), finish);
    }

    /// Sum of each window weighted by `[tap][channel]`: a depthwise convolution.
    pub(crate) fn weighted(
        &self,
        set: InstructionSet,
        samples: usize,
        source: &[f32],
        output: &mut [f32],
        weights: &[f32],
        finish: Finish<'_>,
    ) {
        assert_eq!(weights.len(), self.taps() * self.channels);
        #[cfg(test)]
        super::checked::allow(weights);
        self.run(set, samples, source, output, Purpose::Weighted(weights), finish);
    }

    fn run(
        &self,
        set: InstructionSet,
        samples: usize,
        source: &[f32],
        output: &mut [f32],
        purpose: Purpose<'_>,
        finish: Finish<'_>,
    ) {
        assert_eq!(source.len(), samples * self.sides() * self.channels);
        let sink = Sink::new(output, samples * self.places(), self.channels, finish);
        #[cfg(test)]
        super::checked::allow(source);
        let (depth, height) = (self.axes[0].places(), self.axes[1].places());
        parallel(samples * depth * height, |row| {
            let row = [row / (depth * height), row / height % depth, row % height];
            // SAFETY: lengths are checked above, and each task has a row of the output of its own.
            unsafe { run(set, Task { windows: self, source, sink: &sink, purpose, row }) };
        });
    }
}

entry!(run, run_kernel, Task<'_>);

/// One row of windows.
///
/// Safety: the slices fit the windows.
#[inline(always)]
unsafe fn run_kernel<S: Isa>(task: Task<'_>) {
    match task.purpose {
        Purpose::Greatest(taps) => row::<S, _>(&task, Greatest { taps }),
        Purpose::Chosen(taps) => row::<S, _>(&task, Chosen { taps }),
        Purpose::Weighted(weights) => row::<S, _>(&task, Weighted { weights }),
    }
}

/// What is done at each place and each tap.
trait Work<S: Isa>: Copy {
    type State: Copy;
    unsafe fn start() -> Self::State;
    /// A source value at flat element `at`, seen through `tap` of `channel`.
    unsafe fn see(
        self,
        state: &mut Self::State,
        value: S::Vector,
        at: usize,
        tap: usize,
        channel: (usize, usize, usize),
    );
    /// The result for output element `at`.
    unsafe fn end(self, state: Self::State, at: usize, count: usize) -> S::Vector;
}

#[inline(always)]
unsafe fn row<S: Isa, W: Work<S>>(task: &Task<'_>, work: W) {
    let windows = task.windows;
    let channels = windows.channels;
    let [z, y, x] = &windows.axes;
    let [sample, plane, line] = task.row;
    let first = ((sample * z.places() + plane) * y.places() + line) * x.places();
    for place in 0..x.places() {
        let mut channel = 0;
        while channel < channels {
            let count = (channels - channel).min(S::LANES);
            let mut state = W::start();
            for &(from_z, tap_z) in z.of(plane) {
                for &(from_y, tap_y) in y.of(line) {
                    let row = ((sample * z.side + from_z) * y.side + from_y) * x.side;
                    let tap = (tap_z * y.taps + tap_y) * x.taps;
                    for &(from_x, tap_x) in x.of(place) {
                        let at = (row + from_x) * channels + channel;
                        let value = read::<S>(task.source.as_ptr().add(at), count);
                        work.see(&mut state, value, at, tap + tap_x, (channel, channels, count));
                    }
                }
            }
            let at = (first + place) * channels + channel;
            let result = work.end(state, at, count);
            task.sink.put::<S>(first + place, channel, count, result);
            channel += count;
        }
    }
}

#[derive(Clone, Copy)]
struct Greatest {
    taps: *mut u8,
}

impl<S: Isa> Work<S> for Greatest {
    /// The greatest value so far and its tap.
    type State = (S::Vector, S::Vector);

    #[inline(always)]
    unsafe fn start() -> Self::State {
        (S::splat(f32::NEG_INFINITY), S::splat(f32::from(NO_TAP)))
    }

    #[inline(always)]
    unsafe fn see(self, state: &mut Self::State, value: S::Vector, _: usize, tap: usize, _: (usize, usize, usize)) {
        let wins = S::wins(value, state.0);
        *state = (S::select(wins, value, state.0), S::select(wins, S::splat(tap as f32), state.1));
    }

    #[inline(always)]
    unsafe fn end(self, state: Self::State, at: usize, count: usize) -> S::Vector {
        let mut taps = [0.0_f32; 16];
        for lane in (0..16).step_by(S::LANES) {
            // Safety: both halves exist; the second is not read with 8 lanes.
            std::ptr::copy_nonoverlapping((&raw const state.1).cast::<f32>(), taps.as_mut_ptr().add(lane), S::LANES);
        }
        let mut bytes = [0_u8; 16];
        for (byte, tap) in bytes.iter_mut().zip(taps) {
            *byte = tap.to_int_unchecked::<i32>() as u8;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.taps.add(at), count);
        state.0
    }
}

#[derive(Clone, Copy)]
struct Chosen<'a> {
    taps: &'a [u8],
}

impl<S: Isa> Work<S> for Chosen<'_> {
    type State = S::Vector;

    #[inline(always)]
    unsafe fn start() -> Self::State {
        S::zero()
    }

    #[inline(always)]
    unsafe fn see(
        self,
        state: &mut Self::State,
        value: S::Vector,
        at: usize,
        tap: usize,
        (_, _, count): (usize, usize, usize),
    ) {
        let chosen = S::equals(self.taps.as_ptr().add(at), count, tap as u8);
        *state = S::select(chosen, S::add(*state, value), *state);
    }

    #[inline(always)]
    unsafe fn end(self, state: Self::State, _: usize, _: usize) -> S::Vector {
        state
    }
}

#[derive(Clone, Copy)]
struct Weighted<'a> {
    weights: &'a [f32],
}

impl<S: Isa> Work<S> for Weighted<'_> {
    type State = S::Vector;

    #[inline(always)]
    unsafe fn start() -> Self::State {
        S::zero()
    }

    #[inline(always)]
    unsafe fn see(
        self,
        state: &mut Self::State,
        value: S::Vector,
        _: usize,
        tap: usize,
        (channel, channels, count): (usize, usize, usize),
    ) {
        let weight = read::<S>(self.weights.as_ptr().add(tap * channels + channel), count);
        *state = S::fma(value, weight, *state);
    }

    #[inline(always)]
    unsafe fn end(self, state: Self::State, _: usize, _: usize) -> S::Vector {
        state
    }
}
