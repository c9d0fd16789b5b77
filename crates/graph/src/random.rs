//! Random numbers that follow from what they are for: a seed, a name, a step.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A generator for one purpose.
pub(crate) fn generator(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A seed for one purpose among many: mixes `part` into `seed`, so that neighbouring seeds and parts are unrelated.
pub(crate) fn mixed(seed: u64, part: u64) -> u64 {
    let mut state = seed ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// A seed for something that has a name.
pub(crate) fn named(seed: u64, name: &str) -> u64 {
    name.bytes().fold(mixed(seed, 1), |state, byte| mixed(state, u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_do_not_share_numbers() {
        assert_ne!(mixed(0, 1), mixed(1, 0));
        assert_ne!(named(7, "a/weight"), named(7, "b/weight"));
        assert_eq!(named(7, "a"), named(7, "a"));
    }
}
