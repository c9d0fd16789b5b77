//! The kernels: the only module with `unsafe` code.
//!
//! # What holds
//!
//! - Every function that callers outside this module see is safe. It asserts that its slices fit its plan before any kernel
//!   runs; what the asserts say is what the kernels rely on.
//! - Kernels address memory by plan and place alone. Places outside a source are found by comparison with its sides and read
//!   as zeros; the last lanes of a row are read and written by `load_part` and `store_part`.
//! - Tasks that run at the same time write disjoint parts of an output. Which part is a task's own follows from its number.
//! - Memory is `f32` or `u8` and initialised; no kernel reads what it has not been handed.
//! - Kernels of an instruction set run only where the machine has it ([`InstructionSet`] cannot name another, save that a
//!   caller inside the crate makes one up).
//!
//! Tests run every kernel on a bounds-checked twin (`checked`), which holds each access against the memory handed over.
#![expect(unsafe_code, reason = "vector instructions, and disjoint writes from several threads")]
#![expect(unsafe_op_in_unsafe_fn, reason = "the body of a kernel is unsafe throughout; its conditions stand above it")]
#![allow(
    clippy::inline_always,
    clippy::wildcard_imports,
    clippy::needless_range_loop,
    clippy::missing_safety_doc,
    clippy::cast_ptr_alignment,
    clippy::too_many_arguments,
    reason = "kernels: intrinsics must land in functions with their features, and loops over registers must unroll"
)]

mod buffer;
#[cfg(test)]
pub(crate) mod checked;
mod finish;
mod gathered;
mod isa;
mod multiplied;
mod parallel;
mod pointwise;
mod scattered;
mod vectorised;
mod windows;
mod winograd;

pub(crate) use buffer::{Buffer, floats, floats_mut, reserve};
pub(crate) use finish::{Finish, bit_stride};
pub(crate) use gathered::{Gathered, Packed, Run, gathered};
pub use isa::{INSTRUCTION_SET_VARIABLE, InstructionSet};
pub(crate) use multiplied::{Factor, Sides, multiplied};
pub(crate) use parallel::inside_the_pool;
pub(crate) use pointwise::{AxisMatrix, mapped, scaled};
pub(crate) use scattered::{Scattered, scattered};
pub(crate) use vectorised::vectorised;
pub(crate) use windows::{MOST_TAPS, Reach, Windows};
pub(crate) use winograd::{TileWeights, Tiled, tiled};
