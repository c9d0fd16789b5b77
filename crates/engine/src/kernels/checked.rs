//! The bounds-checked twin of the kernels: every access is held against the memory that the caller handed over.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::isa::Watch;

static ALLOWED: RwLock<Vec<(usize, usize)>> = RwLock::new(Vec::new());
static TURN: Mutex<()> = Mutex::new(());

/// Forgets what was allowed; only one test watches at a time.
pub(crate) fn begin() -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    ALLOWED.write().unwrap_or_else(PoisonError::into_inner).clear();
    turn
}

/// Lets checked kernels read and write this memory.
pub(super) fn allow<T>(memory: &[T]) {
    let range = memory.as_ptr_range();
    let range = (range.start as usize, range.end as usize);
    let known = ALLOWED.read().unwrap_or_else(PoisonError::into_inner).contains(&range);
    if !known {
        ALLOWED.write().unwrap_or_else(PoisonError::into_inner).push(range);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Ranges;

impl Watch for Ranges {
    fn access(from: usize, count: usize, size: usize) {
        let end = from + count * size;
        let allowed = ALLOWED.read().unwrap_or_else(PoisonError::into_inner);
        assert!(
            count == 0 || allowed.iter().any(|&(start, stop)| start <= from && end <= stop),
            "access outside the memory that the caller handed over"
        );
    }
}
