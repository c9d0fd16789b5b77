//! What happens to a result between its register and memory: bias, residual, ReLU and its bits.

use super::isa::Isa;

/// Bytes of ReLU bits of one place with this many channels: one bit a channel, filled up to 16.
pub(crate) fn bit_stride(channels: usize) -> usize {
    channels.div_ceil(16) * 2
}

/// What is done with each result of a kernel, in this order.
#[derive(Default)]
pub(crate) struct Finish<'a> {
    /// Added to each output channel.
    pub(crate) bias: Option<&'a [f32]>,
    /// Added element by element; as long as the output.
    pub(crate) residual: Option<&'a [f32]>,
    /// Whether what the output holds is added.
    pub(crate) accumulate: bool,
    /// ReLU; the bits say which results were above 0.
    pub(crate) rectified: Option<&'a mut [u8]>,
    /// Results whose bit is not set become 0: the derivative of a ReLU.
    pub(crate) passing: Option<&'a [u8]>,
}

/// [`Finish`] with the output as pointers, for tasks that write disjoint parts of the output.
#[derive(Clone, Copy)]
pub(super) struct Sink {
    output: *mut f32,
    bias: *const f32,
    residual: *const f32,
    rectified: *mut u8,
    passing: *const u8,
    /// Output channels of a place.
    channels: usize,
}

// SAFETY: a sink only lends its pointers to `Sink::put`, whose callers write each element from one task.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

impl Sink {
    /// The sink of an output of `places` places with `channels` channels each.
    ///
    /// # Panics
    ///
    /// When a slice does not have the length that this makes.
    pub(super) fn new(output: &mut [f32], places: usize, channels: usize, finish: Finish<'_>) -> Self {
        assert_eq!(output.len(), places * channels);
        let bits = places * bit_stride(channels);
        let Finish { bias, residual, accumulate, rectified, passing } = finish;
        assert!(bias.is_none_or(|bias| bias.len() == channels));
        assert!(residual.is_none_or(|residual| residual.len() == output.len()));
        assert!(rectified.as_ref().is_none_or(|rectified| rectified.len() == bits));
        assert!(passing.is_none_or(|passing| passing.len() == bits));
        assert!(!(accumulate && residual.is_some()), "one of the two is added");
        #[cfg(test)]
        {
            use super::checked::allow;
            allow(output);
            bias.map(allow);
            residual.map(allow);
        }
        let output = output.as_mut_ptr();
        let added = residual.map_or(std::ptr::null(), <[f32]>::as_ptr);
        Self {
            output,
            bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
            residual: if accumulate { output } else { added },
            rectified: rectified.map_or(std::ptr::null_mut(), <[u8]>::as_mut_ptr),
            passing: passing.map_or(std::ptr::null(), <[u8]>::as_ptr),
            channels,
        }
    }

    /// The same with the bias of as many neighbouring places as a vector holds, for [`Sink::put_places`].
    ///
    /// # Panics
    ///
    /// When a place has more channels than `repeated`.
    pub(super) fn repeating(mut self, repeated: &mut [f32; 16]) -> Self {
        assert!(self.channels <= repeated.len());
        if !self.bias.is_null() {
            for (at, value) in repeated.iter_mut().enumerate() {
                // SAFETY: the bias has one value for each channel.
                *value = unsafe { *self.bias.add(at % self.channels) };
            }
            #[cfg(test)]
            super::checked::allow(repeated.as_slice());
            self.bias = repeated.as_ptr();
        }
        self
    }

    /// Finishes all channels of `places` neighbouring places, which follow each other in a vector.
    ///
    /// Safety: the places exist and fit a vector, the sink is [`Sink::repeating`], and no other task has to do with these
    /// elements.
    #[inline(always)]
    pub(super) unsafe fn put_places<S: Isa>(&self, place: usize, places: usize, mut value: S::Vector) {
        let (at, count, stride) = (place * self.channels, places * self.channels, bit_stride(self.channels));
        if !self.bias.is_null() {
            value = S::add(value, read::<S>(self.bias, count));
        }
        if !self.residual.is_null() {
            value = S::add(value, read::<S>(self.residual.add(at), count));
        }
        if !self.rectified.is_null() {
            let above = S::not_below(value);
            value = S::select(above, value, S::zero());
            for number in 0..places {
                let own = above >> (number * self.channels) & ((1 << self.channels) - 1);
                *self.rectified.add((place + number) * stride) = own as u8;
            }
        }
        if !self.passing.is_null() {
            let mut passing = 0;
            for number in 0..places {
                let own = u16::from(*self.passing.add((place + number) * stride)) & ((1 << self.channels) - 1);
                passing |= own << (number * self.channels);
            }
            value = S::select(passing, value, S::zero());
        }
        if count >= S::LANES {
            S::store(self.output.add(at), value);
        } else {
            S::store_part(self.output.add(at), count, value);
        }
    }

    /// Finishes `count` (1 to `LANES`) channels from `channel` of a place.
    ///
    /// Safety: the place and the channels exist; `channel` is a multiple of 8 where there are bits, of 16 for sets with 16 lanes; and no
    /// other task has to do with these elements.
    #[inline(always)]
    pub(super) unsafe fn put<S: Isa>(&self, place: usize, channel: usize, count: usize, mut value: S::Vector) {
        let at = place * self.channels + channel;
        let bits = place * bit_stride(self.channels) + channel / 8;
        let whole = count >= S::LANES;
        if !self.bias.is_null() {
            value = S::add(value, read::<S>(self.bias.add(channel), count));
        }
        if !self.residual.is_null() {
            value = S::add(value, read::<S>(self.residual.add(at), count));
        }
        if !self.rectified.is_null() {
            let above = S::not_below(value);
            value = S::select(above, value, S::zero());
            if S::LANES == 16 {
                self.rectified.add(bits).cast::<u16>().write_unaligned(above.to_le());
            } else {
                *self.rectified.add(bits) = above as u8;
            }
        }
        if !self.passing.is_null() {
            let passing = if S::LANES == 16 {
                u16::from_le(self.passing.add(bits).cast::<u16>().read_unaligned())
            } else {
                u16::from(*self.passing.add(bits))
            };
            value = S::select(passing, value, S::zero());
        }
        if whole {
            S::store(self.output.add(at), value);
        } else {
            S::store_part(self.output.add(at), count, value);
        }
    }
}

/// `count` floats, zeros behind.
///
/// Safety: they exist.
#[inline(always)]
pub(super) unsafe fn read<S: Isa>(from: *const f32, count: usize) -> S::Vector {
    if count >= S::LANES { S::load(from) } else { S::load_part(from, count) }
}
