//! Safe loops, compiled for the vector instructions of the machine.

use super::isa::InstructionSet;

/// Runs `work` as the compiler turns it into vector instructions of `set`; it must be `#[inline(always)]`, and so must what
/// it calls. Results do not depend on the set: the compiler joins and reorders nothing.
#[inline(always)]
pub(crate) fn vectorised<R>(set: InstructionSet, work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
    unsafe fn avx512<R>(work: impl FnOnce() -> R) -> R {
        work()
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<R>(work: impl FnOnce() -> R) -> R {
        work()
    }
    match set {
        // SAFETY: the machine has the instruction sets that `InstructionSet` names.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => unsafe { avx512(work) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => unsafe { avx2(work) },
        _ => work(),
    }
}
