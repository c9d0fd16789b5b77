//! Files that were damaged in every way that a few bytes allow: an error or a faithful copy, never a panic.

#![expect(clippy::unwrap_used, reason = "a seed that cannot be made is a failed test")]

mod entry;

use std::fs;
use std::path::Path;

use nocebo_core::Seed;
use rand::RngExt;

/// The small valid files that fuzzing starts from.
fn seeds(ending: &str) -> Vec<Vec<u8>> {
    let folder =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds")).join(ending[1..].replace('.', "-"));
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Some bytes replaced, put in, taken out, or taken twice.
fn damaged(bytes: &[u8], number: u64) -> Vec<u8> {
    const PIECES: [&[u8]; 10] = [b"-1", b"9999999999", b"nan", b"1e300", b"\0", b"\xff\xff", b"\"", b"\n", b"=", b",,"];
    let mut generator = Seed(7).for_sample(number);
    let mut bytes = bytes.to_vec();
    for _ in 0..generator.random_range(1..4) {
        let at = generator.random_range(0..bytes.len().max(1));
        let end = (at + generator.random_range(0..5)).min(bytes.len());
        match generator.random_range(0..5) {
            0 => drop(bytes.splice(at..end, (at..end).map(|at| at as u8 ^ number as u8).collect::<Vec<_>>())),
            1 => drop(bytes.splice(at..end, PIECES[generator.random_range(0..PIECES.len())].iter().copied())),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            _ => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
        }
    }
    bytes
}

#[test]
fn whatever_the_bytes_there_is_no_panic_and_what_is_read_survives_writing() {
    for ending in entry::ENDINGS {
        let mut read = 0;
        for seed in seeds(ending) {
            assert!(entry::try_file(ending, &seed), "{ending}");
            read += (0..40).filter(|&number| entry::try_file(ending, &damaged(&seed, number))).count();
        }
        // Damage that changes only values or blanks is read; most is refused. Checksums find all of it.
        let all = 40 * seeds(ending).len();
        let summed = matches!(ending, ".nii.gz" | ".png" | ".npz");
        assert!((1..all).contains(&read) || summed && read < all / 4, "{ending}: {read} of {all}");
    }
}
