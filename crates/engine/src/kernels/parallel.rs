//! Tasks over the threads of the current pool.

use rayon::prelude::*;

/// Runs `task` for each number below `count`. Tasks are taken one by one, so their cost may differ.
pub(crate) fn parallel(count: usize, task: impl Fn(usize) + Sync) {
    if count == 1 || rayon::current_num_threads() == 1 {
        (0..count).for_each(task);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(&task);
    }
}

/// Runs `work` on a thread of the current pool, so that what it shares out need not be handed over to the pool each time.
pub(crate) fn inside_the_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

/// Tasks of at most `most` rows each that cover `rows`, enough of them to keep all threads busy where there are rows for that.
pub(crate) fn rows_per_task(rows: usize, most: usize, unit: usize) -> usize {
    let wanted = rows.div_ceil(4 * rayon::current_num_threads());
    wanted.clamp(1, most.max(1)).next_multiple_of(unit)
}
