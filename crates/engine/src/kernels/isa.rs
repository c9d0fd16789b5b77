//! Instruction sets: vectors of 8 or 16 floats with the few operations that the kernels need.
//!
//! Kernels are written once over [`Isa`]. `entry!` makes the function that callers see: it runs the kernel compiled for the
//! instruction set that [`InstructionSet`] names. Everything on the way from there to an intrinsic is `inline(always)`, so
//! that the intrinsics land in a function that has their features.

use std::fmt;

/// Which vector instructions the engine uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstructionSet {
    /// AVX-512 F, DQ, BW and VL: 16 floats, 32 registers.
    Avx512,
    /// AVX2 with FMA: 8 floats, 16 registers.
    Avx2,
    /// NEON: pairs of 4 floats, 32 registers.
    Neon,
    /// Plain Rust: whatever the compiler makes of arrays of 8 floats.
    Portable,
    /// Plain Rust that checks every access against the memory that the caller handed over.
    #[cfg(test)]
    Checked,
}

/// The environment variable that forces an instruction set.
pub const INSTRUCTION_SET_VARIABLE: &str = "NOCEBO_ENGINE_ISA";

impl InstructionSet {
    /// All that this build knows, the fastest first.
    const KNOWN: [(Self, &'static str); 4] =
        [(Self::Avx512, "avx512"), (Self::Avx2, "avx2"), (Self::Neon, "neon"), (Self::Portable, "portable")];

    /// Those that run on this machine, the fastest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::KNOWN.iter().map(|(set, _)| *set).filter(|set| set.is_available())
    }

    /// The fastest of this machine, or what [`INSTRUCTION_SET_VARIABLE`] names.
    ///
    /// # Errors
    ///
    /// The variable's value where it names none that runs here.
    pub fn chosen() -> Result<Self, String> {
        let Ok(name) = std::env::var(INSTRUCTION_SET_VARIABLE) else {
            return Ok(Self::available().next().unwrap_or(Self::Portable));
        };
        let known = Self::KNOWN.iter().find(|(_, known)| *known == name).map(|(set, _)| *set);
        known.filter(|set| set.is_available()).ok_or(name)
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            Self::Portable => true,
            #[cfg(test)]
            Self::Checked => true,
            #[allow(unreachable_patterns, reason = "which sets remain depends on the architecture")]
            _ => false,
        }
    }

    /// Rows of a tile of the matrix product.
    pub(crate) fn rows(self) -> usize {
        match self {
            Self::Avx512 => 14,
            Self::Avx2 | Self::Neon => 6,
            _ => 4,
        }
    }

    /// Floats of a vector.
    pub(crate) fn lanes(self) -> usize {
        if self == Self::Avx512 { 16 } else { 8 }
    }

    /// Columns of a tile of the matrix product: outputs of one panel of weights.
    pub(crate) fn columns(self) -> usize {
        match self {
            Self::Avx512 => 32,
            Self::Avx2 | Self::Neon => 16,
            _ => 8,
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::KNOWN.iter().find(|(set, _)| set == self).map_or("checked", |(_, name)| name);
        formatter.write_str(name)
    }
}

/// A vector instruction set.
///
/// # Safety of its functions
///
/// They may only run where the instruction set is available, and pointers must be valid for the floats that the function
/// names; no alignment is asked for.
pub(super) trait Isa: Copy {
    type Vector: Copy;
    /// Floats in a vector: 8 or 16.
    const LANES: usize;
    /// Vectors side by side in a tile of the matrix product.
    const VECTORS: usize;
    /// Rows of a tile of the matrix product.
    const ROWS: usize;

    unsafe fn splat(value: f32) -> Self::Vector;
    /// `LANES` floats.
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// `LANES` floats.
    unsafe fn store(to: *mut f32, value: Self::Vector);
    /// The first `count` floats, zeros behind; `count` in `0..=LANES`.
    unsafe fn load_part(from: *const f32, count: usize) -> Self::Vector;
    /// The first `count` lanes; `count` in `0..=LANES`.
    unsafe fn store_part(to: *mut f32, count: usize, value: Self::Vector);
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a · b + c`.
    unsafe fn fma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `c - a · b`.
    unsafe fn fnma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// One bit a lane: set where the lane is above 0 or NaN.
    unsafe fn not_below(a: Self::Vector) -> u16;
    /// Bits of lanes in which `a` is above `b`, or `a` is NaN and `b` is not.
    unsafe fn wins(a: Self::Vector, b: Self::Vector) -> u16;
    /// Bits of lanes in which byte `from[lane]` equals `byte`; reads `LANES` bytes, of which the first `count` exist.
    unsafe fn equals(from: *const u8, count: usize, byte: u8) -> u16;
    /// Lanes of `a` whose bit is set, of `b` elsewhere.
    unsafe fn select(bits: u16, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Writes the product of some rows of a packed block with the first vectors of a panel of weights, or adds it where `add`;
    /// `sides` are the numbers of rows and vectors.
    ///
    /// `a` is `[chunks][ROWS][16]`, `b` is `[chunks · 16][VECTORS · LANES]`, `c` is `[rows][VECTORS · LANES]`, of which the
    /// other vectors are left alone.
    unsafe fn product(sides: (usize, usize), a: *const f32, b: *const f32, chunks: usize, c: *mut f32, add: bool);

    #[inline(always)]
    unsafe fn zero() -> Self::Vector {
        Self::splat(0.0)
    }
    /// Brings the line at `from` near; any address is allowed.
    #[inline(always)]
    unsafe fn prefetch(_from: *const f32) {}
    /// Copies 16 floats.
    #[inline(always)]
    unsafe fn copy_line(from: *const f32, to: *mut f32) {
        for at in (0..16).step_by(Self::LANES) {
            Self::store(to.add(at), Self::load(from.add(at)));
        }
    }
    /// Sets 16 floats to 0.
    #[inline(always)]
    unsafe fn zero_line(to: *mut f32) {
        for at in (0..16).step_by(Self::LANES) {
            Self::store(to.add(at), Self::zero());
        }
    }
}

/// The tile of `R` rows and the first `V` vectors: every sum stays in a register.
#[inline(always)]
unsafe fn tile<S: Isa, const R: usize, const V: usize>(
    mut a: *const f32,
    mut b: *const f32,
    chunks: usize,
    c: *mut f32,
    add: bool,
) {
    /// Floats of weights to fetch ahead: 4 KiB.
    const AHEAD: usize = 1024;
    let mut sums = [[S::zero(); V]; R];
    if add {
        for r in 0..R {
            for v in 0..V {
                sums[r][v] = S::load(c.add((r * S::VECTORS + v) * S::LANES));
            }
        }
    }
    for _ in 0..chunks {
        for k in 0..16 {
            let mut weights = [S::zero(); V];
            for v in 0..V {
                let at = (k * S::VECTORS + v) * S::LANES;
                weights[v] = S::load(b.add(at));
                S::prefetch(b.wrapping_add(at + AHEAD));
            }
            for r in 0..R {
                let x = S::splat(*a.add(r * 16 + k));
                for v in 0..V {
                    sums[r][v] = S::fma(x, weights[v], sums[r][v]);
                }
            }
        }
        a = a.add(S::ROWS * 16);
        b = b.add(16 * S::VECTORS * S::LANES);
    }
    for r in 0..R {
        for v in 0..V {
            S::store(c.add((r * S::VECTORS + v) * S::LANES), sums[r][v]);
        }
    }
}

/// `product` of an instruction set with two vectors: two instances of `tile` for each number of rows.
macro_rules! product {
    ($set:ty, $feature:literal, $($rows:literal)*) => {
        #[inline(always)]
        unsafe fn product(
            sides: (usize, usize),
            a: *const f32,
            b: *const f32,
            chunks: usize,
            c: *mut f32,
            add: bool,
        ) {
            #[inline(never)]
            #[target_feature(enable = $feature)]
            unsafe fn of_sides<const R: usize, const V: usize>(
                a: *const f32,
                b: *const f32,
                chunks: usize,
                c: *mut f32,
                add: bool,
            ) {
                tile::<$set, R, V>(a, b, chunks, c, add);
            }
            match sides {
                $(($rows, 2) => of_sides::<$rows, 2>(a, b, chunks, c, add),)*
                $(($rows, 1) => of_sides::<$rows, 1>(a, b, chunks, c, add),)*
                _ => unreachable!("a tile has 1 to ROWS rows and 1 to VECTORS vectors"),
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Isa, tile};

    #[derive(Clone, Copy)]
    pub(in crate::kernels) struct Avx512;

    #[inline(always)]
    fn first(count: usize) -> __mmask16 {
        ((1_u32 << count) - 1) as __mmask16
    }

    impl Isa for Avx512 {
        type Vector = __m512;
        const LANES: usize = 16;
        const VECTORS: usize = 2;
        const ROWS: usize = 14;

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m512 {
            _mm512_set1_ps(value)
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            _mm512_loadu_ps(from)
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, value: __m512) {
            _mm512_storeu_ps(to, value);
        }
        #[inline(always)]
        unsafe fn load_part(from: *const f32, count: usize) -> __m512 {
            _mm512_maskz_loadu_ps(first(count), from)
        }
        #[inline(always)]
        unsafe fn store_part(to: *mut f32, count: usize, value: __m512) {
            _mm512_mask_storeu_ps(to, first(count), value);
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            _mm512_add_ps(a, b)
        }
        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            _mm512_sub_ps(a, b)
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            _mm512_fmadd_ps(a, b, c)
        }
        #[inline(always)]
        unsafe fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 {
            _mm512_fnmadd_ps(a, b, c)
        }
        #[inline(always)]
        unsafe fn not_below(a: __m512) -> u16 {
            _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(a, _mm512_setzero_ps())
        }
        #[inline(always)]
        unsafe fn wins(a: __m512, b: __m512) -> u16 {
            _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(a, b) & _mm512_cmp_ps_mask::<_CMP_ORD_Q>(b, b)
        }
        #[inline(always)]
        unsafe fn equals(from: *const u8, count: usize, byte: u8) -> u16 {
            let bytes = _mm_maskz_loadu_epi8(first(count), from.cast());
            _mm_cmpeq_epi8_mask(bytes, _mm_set1_epi8(byte as i8)) & first(count)
        }
        #[inline(always)]
        unsafe fn select(bits: u16, a: __m512, b: __m512) -> __m512 {
            _mm512_mask_mov_ps(b, bits, a)
        }
        #[inline(always)]
        unsafe fn prefetch(from: *const f32) {
            _mm_prefetch::<_MM_HINT_T0>(from.cast());
        }
        product!(Avx512, "avx512f,avx512dq,avx512bw,avx512vl", 14 1 2 3 4 5 6 7 8 9 10 11 12 13);
    }

    #[derive(Clone, Copy)]
    pub(in crate::kernels) struct Avx2;

    /// All bits of the lanes below `count`.
    #[inline(always)]
    unsafe fn lanes_below(count: usize) -> __m256i {
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
    }

    impl Isa for Avx2 {
        type Vector = __m256;
        const LANES: usize = 8;
        const VECTORS: usize = 2;
        const ROWS: usize = 6;

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m256 {
            _mm256_set1_ps(value)
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            _mm256_loadu_ps(from)
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, value: __m256) {
            _mm256_storeu_ps(to, value);
        }
        #[inline(always)]
        unsafe fn load_part(from: *const f32, count: usize) -> __m256 {
            _mm256_maskload_ps(from, lanes_below(count))
        }
        #[inline(always)]
        unsafe fn store_part(to: *mut f32, count: usize, value: __m256) {
            _mm256_maskstore_ps(to, lanes_below(count), value);
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            _mm256_add_ps(a, b)
        }
        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            _mm256_sub_ps(a, b)
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            _mm256_fmadd_ps(a, b, c)
        }
        #[inline(always)]
        unsafe fn fnma(a: __m256, b: __m256, c: __m256) -> __m256 {
            _mm256_fnmadd_ps(a, b, c)
        }
        #[inline(always)]
        unsafe fn not_below(a: __m256) -> u16 {
            _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(a, _mm256_setzero_ps())) as u16
        }
        #[inline(always)]
        unsafe fn wins(a: __m256, b: __m256) -> u16 {
            let above = _mm256_cmp_ps::<_CMP_NLE_UQ>(a, b);
            _mm256_movemask_ps(_mm256_and_ps(above, _mm256_cmp_ps::<_CMP_ORD_Q>(b, b))) as u16
        }
        #[inline(always)]
        unsafe fn equals(from: *const u8, count: usize, byte: u8) -> u16 {
            super::bytes_equal(from, count, byte)
        }
        #[inline(always)]
        unsafe fn select(bits: u16, a: __m256, b: __m256) -> __m256 {
            let ones = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(i32::from(bits)), ones), ones);
            _mm256_blendv_ps(b, a, _mm256_castsi256_ps(set))
        }
        #[inline(always)]
        unsafe fn prefetch(from: *const f32) {
            _mm_prefetch::<_MM_HINT_T0>(from.cast());
        }
        product!(Avx2, "avx2,fma", 6 1 2 3 4 5);
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

/// `Isa::equals` for sets without byte masks.
#[inline(always)]
unsafe fn bytes_equal(from: *const u8, count: usize, byte: u8) -> u16 {
    let mut bits = 0;
    for lane in 0..count {
        bits |= u16::from(*from.add(lane) == byte) << lane;
    }
    bits
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::{Isa, tile};

    #[derive(Clone, Copy)]
    pub(in crate::kernels) struct Neon;

    /// Two registers count as one vector of 8.
    type Pair = (float32x4_t, float32x4_t);

    const WEIGHTS: [[u32; 4]; 2] = [[1, 2, 4, 8], [16, 32, 64, 128]];

    #[inline(always)]
    unsafe fn bits(low: uint32x4_t, high: uint32x4_t) -> u16 {
        let low = vandq_u32(low, vld1q_u32(WEIGHTS[0].as_ptr()));
        let high = vandq_u32(high, vld1q_u32(WEIGHTS[1].as_ptr()));
        vaddvq_u32(vorrq_u32(low, high)) as u16
    }

    impl Isa for Neon {
        type Vector = Pair;
        const LANES: usize = 8;
        const VECTORS: usize = 2;
        const ROWS: usize = 6;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Pair {
            (vdupq_n_f32(value), vdupq_n_f32(value))
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Pair {
            (vld1q_f32(from), vld1q_f32(from.add(4)))
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, value: Pair) {
            vst1q_f32(to, value.0);
            vst1q_f32(to.add(4), value.1);
        }
        #[inline(always)]
        unsafe fn load_part(from: *const f32, count: usize) -> Pair {
            let mut whole = [0.0; 8];
            for lane in 0..count {
                whole[lane] = *from.add(lane);
            }
            Self::load(whole.as_ptr())
        }
        #[inline(always)]
        unsafe fn store_part(to: *mut f32, count: usize, value: Pair) {
            let mut whole = [0.0; 8];
            Self::store(whole.as_mut_ptr(), value);
            for lane in 0..count {
                *to.add(lane) = whole[lane];
            }
        }
        #[inline(always)]
        unsafe fn add(a: Pair, b: Pair) -> Pair {
            (vaddq_f32(a.0, b.0), vaddq_f32(a.1, b.1))
        }
        #[inline(always)]
        unsafe fn sub(a: Pair, b: Pair) -> Pair {
            (vsubq_f32(a.0, b.0), vsubq_f32(a.1, b.1))
        }
        #[inline(always)]
        unsafe fn fma(a: Pair, b: Pair, c: Pair) -> Pair {
            (vfmaq_f32(c.0, a.0, b.0), vfmaq_f32(c.1, a.1, b.1))
        }
        #[inline(always)]
        unsafe fn fnma(a: Pair, b: Pair, c: Pair) -> Pair {
            (vfmsq_f32(c.0, a.0, b.0), vfmsq_f32(c.1, a.1, b.1))
        }
        #[inline(always)]
        unsafe fn not_below(a: Pair) -> u16 {
            let zero = vdupq_n_f32(0.0);
            bits(vmvnq_u32(vcleq_f32(a.0, zero)), vmvnq_u32(vcleq_f32(a.1, zero)))
        }
        #[inline(always)]
        unsafe fn wins(a: Pair, b: Pair) -> u16 {
            let low = vandq_u32(vmvnq_u32(vcleq_f32(a.0, b.0)), vceqq_f32(b.0, b.0));
            let high = vandq_u32(vmvnq_u32(vcleq_f32(a.1, b.1)), vceqq_f32(b.1, b.1));
            bits(low, high)
        }
        #[inline(always)]
        unsafe fn equals(from: *const u8, count: usize, byte: u8) -> u16 {
            super::bytes_equal(from, count, byte)
        }
        #[inline(always)]
        unsafe fn select(bits: u16, a: Pair, b: Pair) -> Pair {
            let all = vdupq_n_u32(u32::from(bits));
            let low = vtstq_u32(all, vld1q_u32(WEIGHTS[0].as_ptr()));
            let high = vtstq_u32(all, vld1q_u32(WEIGHTS[1].as_ptr()));
            (vbslq_f32(low, a.0, b.0), vbslq_f32(high, a.1, b.1))
        }
        product!(Neon, "neon", 6 1 2 3 4 5);
    }
}

#[cfg(target_arch = "aarch64")]
pub(super) use arm::Neon;

/// Who watches the accesses of plain Rust vectors.
pub(super) trait Watch: Copy {
    /// Called before `count` elements of `size` bytes are read from or written to `from`.
    #[inline(always)]
    fn access(_from: usize, _count: usize, _size: usize) {}
}

#[derive(Clone, Copy)]
pub(super) struct Unwatched;

impl Watch for Unwatched {}

/// Arrays of 8 floats.
#[derive(Clone, Copy)]
pub(super) struct Plain<W>(std::marker::PhantomData<W>);

pub(super) type Portable = Plain<Unwatched>;

#[inline(always)]
fn lanes(of: impl Fn(usize) -> bool) -> u16 {
    (0..8).map(|lane| u16::from(of(lane)) << lane).sum()
}

impl<W: Watch> Isa for Plain<W> {
    type Vector = [f32; 8];
    const LANES: usize = 8;
    const VECTORS: usize = 1;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 8] {
        [value; 8]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 8] {
        W::access(from as usize, 8, 4);
        from.cast::<[f32; 8]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: [f32; 8]) {
        W::access(to as usize, 8, 4);
        to.cast::<[f32; 8]>().write_unaligned(value);
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> [f32; 8] {
        W::access(from as usize, count, 4);
        std::array::from_fn(|lane| if lane < count { *from.add(lane) } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_part(to: *mut f32, count: usize, value: [f32; 8]) {
        W::access(to as usize, count, 4);
        for lane in 0..count {
            *to.add(lane) = value[lane];
        }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|lane| a[lane] - b[lane])
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }
    #[inline(always)]
    unsafe fn fnma(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|lane| c[lane] - a[lane] * b[lane])
    }
    #[inline(always)]
    unsafe fn not_below(a: [f32; 8]) -> u16 {
        lanes(|lane| a[lane] > 0.0 || a[lane].is_nan())
    }
    #[inline(always)]
    unsafe fn wins(a: [f32; 8], b: [f32; 8]) -> u16 {
        lanes(|lane| a[lane] > b[lane] || (a[lane].is_nan() && !b[lane].is_nan()))
    }
    #[inline(always)]
    unsafe fn equals(from: *const u8, count: usize, byte: u8) -> u16 {
        W::access(from as usize, count, 1);
        bytes_equal(from, count, byte)
    }
    #[inline(always)]
    unsafe fn select(bits: u16, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|lane| if bits >> lane & 1 == 1 { a[lane] } else { b[lane] })
    }
    #[inline(always)]
    unsafe fn product((rows, _): (usize, usize), a: *const f32, b: *const f32, chunks: usize, c: *mut f32, add: bool) {
        if chunks > 0 {
            W::access(a as usize, (chunks - 1) * Self::ROWS * 16 + rows * 16, 4);
        }
        match rows {
            1 => tile::<Self, 1, 1>(a, b, chunks, c, add),
            2 => tile::<Self, 2, 1>(a, b, chunks, c, add),
            3 => tile::<Self, 3, 1>(a, b, chunks, c, add),
            4 => tile::<Self, 4, 1>(a, b, chunks, c, add),
            _ => unreachable!("a tile has 1 to ROWS rows"),
        }
    }
}

/// Makes a function that runs a kernel on the instruction set that its first argument names.
///
/// The kernel is `unsafe fn kernel<S: Isa>(arguments: A)` and `inline(always)`. Safety: the instruction set must run on this
/// machine, which [`InstructionSet::chosen`] and [`InstructionSet::available`] see to; otherwise as the kernel.
macro_rules! entry {
    ($name:ident, $kernel:ident, $arguments:ty) => {
        #[inline(never)]
        unsafe fn $name(set: $crate::kernels::isa::InstructionSet, arguments: $arguments) {
            use $crate::kernels::isa::{self, InstructionSet};
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
            unsafe fn avx512(arguments: $arguments) {
                $kernel::<isa::Avx512>(arguments);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2(arguments: $arguments) {
                $kernel::<isa::Avx2>(arguments);
            }
            match set {
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 => avx512(arguments),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => avx2(arguments),
                #[cfg(target_arch = "aarch64")]
                InstructionSet::Neon => $kernel::<isa::Neon>(arguments),
                #[cfg(test)]
                InstructionSet::Checked => $kernel::<isa::Plain<$crate::kernels::checked::Ranges>>(arguments),
                _ => $kernel::<isa::Portable>(arguments),
            }
        }
    };
}
pub(super) use entry;
