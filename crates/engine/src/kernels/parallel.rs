//! Tasks over the threads of the current pool.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

/// Runs `task` for each number below `count`. Tasks are taken one by one, so their cost may differ.
pub(crate) fn parallel(count: usize, task: impl Fn(usize) + Sync) {
    if count == 1 || rayon::current_num_threads() == 1 {
        (0..count).for_each(task);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(&task);
    }
}

/// Runs `work` on a thread of the current pool, so that what it shares out need not be handed over to the pool each time, and
/// keeps idle threads of the pool awake meanwhile.
pub(crate) fn inside_the_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| {
        let _awake = Awake::new();
        work()
    })
}

thread_local! {
    /// Whether this thread is inside the pool for a pass of its own.
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, idle threads of the pool look for work and do not fall asleep: a pass shares out hundreds of loops, and to
/// wake a thread takes as long as many of them.
struct Awake {
    over: Arc<AtomicBool>,
    outer: bool,
}

impl Awake {
    fn new() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 1..rayon::current_num_threads() {
            let over = Arc::clone(&over);
            rayon::spawn(move || look_for_work(&over));
        }
        Self { over, outer: AT_WORK.replace(true) }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        AT_WORK.set(self.outer);
    }
}

/// Takes tasks of the pool until `over`. A thread that waits inside a pass of its own returns at once: it must see what it
/// waits for.
fn look_for_work(over: &AtomicBool) {
    /// Looks in vain before each of which the processor is left to others: some tens of microseconds.
    const PATIENCE: usize = 1000;
    let mut in_vain = 0_usize;
    while !AT_WORK.get() && !over.load(Ordering::Acquire) {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            in_vain = 0;
        } else if in_vain < PATIENCE {
            in_vain += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// Tasks of at most `most` rows each that cover `rows`, enough of them to keep all threads busy where there are rows for that.
pub(crate) fn rows_per_task(rows: usize, most: usize, unit: usize) -> usize {
    let wanted = rows.div_ceil(4 * rayon::current_num_threads());
    wanted.clamp(1, most.max(1)).next_multiple_of(unit)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn passes_that_run_at_the_same_time_and_share_their_threads_all_end() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build().unwrap();
        let sum = AtomicUsize::new(0);
        pool.install(|| {
            (0..200_usize).into_par_iter().with_max_len(1).for_each(|pass| {
                inside_the_pool(|| {
                    for _ in 0..20 {
                        parallel(5, |index| {
                            // Long enough for the others to take some.
                            std::thread::sleep(std::time::Duration::from_micros(20));
                            sum.fetch_add(pass * index, Ordering::Relaxed);
                        });
                    }
                });
            });
        });
        assert_eq!(sum.into_inner(), 20 * 10 * (199 * 200 / 2));
    }

    #[test]
    fn a_thread_inside_a_pass_does_not_look_for_work_until_another_is_over() {
        // Without end where it does.
        inside_the_pool(|| look_for_work(&AtomicBool::new(false)));
    }
}
