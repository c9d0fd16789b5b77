//! Memory for activations and weights.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const LINE: usize = 64;
const HUGE_PAGE: usize = 1 << 21;

/// A fixed number of floats, zero at first, that begins on a cache line; on huge pages as far as it fills them.
pub(crate) struct Buffer {
    start: NonNull<f32>,
    length: usize,
    layout: Layout,
}

// SAFETY: a buffer owns its memory alone, as `Vec<f32>` does.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(crate) fn zeroed(length: usize) -> Self {
        let bytes = length.max(1) * size_of::<f32>();
        let alignment = if bytes >= HUGE_PAGE { HUGE_PAGE } else { LINE };
        let layout = Layout::from_size_align(bytes.next_multiple_of(LINE), alignment)
            .unwrap_or_else(|_| handle_alloc_error(Layout::new::<f32>()));
        // SAFETY: the layout is not empty, and the result is checked below.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(memory.cast()) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if alignment == HUGE_PAGE {
            let whole = layout.size() / HUGE_PAGE * HUGE_PAGE;
            // SAFETY: the range is in this allocation, and advice changes no contents. Whether it is taken does not matter.
            unsafe { libc::madvise(memory.cast(), whole, libc::MADV_HUGEPAGE) };
        }
        Self { start, length, layout }
    }
}

impl Buffer {
    /// The memory as bytes, of which [`floats`] makes floats again.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: floats are bytes without gaps, and the buffer is borrowed as `self` is.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length * size_of::<f32>()) }
    }

    /// See [`Buffer::bytes`].
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and any bytes are floats.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.length * size_of::<f32>()) }
    }
}

/// Bytes of a buffer, from its beginning, as floats.
pub(crate) fn floats(bytes: &[u8]) -> &[f32] {
    assert!(bytes.as_ptr().cast::<f32>().is_aligned() && bytes.len().is_multiple_of(size_of::<f32>()));
    // SAFETY: aligned, as long, and any bytes are floats.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<f32>()) }
}

/// See [`floats`].
pub(crate) fn floats_mut(bytes: &mut [u8]) -> &mut [f32] {
    assert!(bytes.as_ptr().cast::<f32>().is_aligned() && bytes.len().is_multiple_of(size_of::<f32>()));
    // SAFETY: aligned, as long, borrowed alone, and any bytes are floats.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<f32>()) }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) };
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `start` is valid for `length` floats, which were zeroed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; the buffer is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

/// Grows `buffer` to at least `length` floats; what it held is lost where it grows.
pub(crate) fn reserve(buffer: &mut Buffer, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        *buffer = Buffer::zeroed(length);
    }
    &mut buffer[..length]
}

thread_local! {
    static SCRATCH: RefCell<Buffer> = RefCell::default();
}

/// Runs `work` with `length` floats that this thread keeps for such use. Their contents are left over from other use.
///
/// `work` must not wait for other threads: the thread could run another task meanwhile, which would find the memory taken.
pub(crate) fn with_scratch<R>(length: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with(|scratch| work(reserve(&mut scratch.borrow_mut(), length)))
}
