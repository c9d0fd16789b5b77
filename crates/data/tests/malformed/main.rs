//! Files that were damaged in every way that a few bytes allow: an error or a faithful copy, never a panic.

#![expect(clippy::unwrap_used, reason = "a seed that cannot be made is a failed test")]

mod entry;

use std::fs;
use std::io::Write;

use nocebo_core::{Domain, DomainConfig, Field, Samples, Seed, Unit};
use nocebo_data::formats::nifti;
use rand::RngExt;

/// A small valid file of each ending.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let shape = [1, 2, 2, 3];
    let samples = Samples::new((0..12).map(|at| at as f32 * 2.0).collect(), &shape).unwrap();
    let config = DomainConfig {
        shape: shape.to_vec(),
        unit: Unit::Hounsfield,
        lower: Field::Uniform(-1024.0),
        upper: Field::Uniform(3070.0),
        resolution: Field::Uniform(2.0),
        region: None,
    };
    let volume = nifti::Volume::new(samples.clone(), Domain::try_from(config).unwrap(), [2.0, 1.0, 1.0]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stored = |ending: &str| {
        let path = folder.path().join(format!("seed{ending}"));
        nifti::write(&path, &volume, &samples).unwrap();
        fs::read(path).unwrap()
    };
    let values: Vec<u8> = (0..12_i16).flat_map(i16::to_be_bytes).collect();
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&values).unwrap();
    let nrrd = b"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 3 2 2\nspace directions: (0.5,0,0) (0,3,4) \
        (0,0,1)\nkinds: domain domain domain\nendian: big\nencoding: raw\n\n";
    let mha = b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = True\nCompressedData = True\nOffset = 1 2 3\n\
        ElementSpacing = 0.5 2 4\nDimSize = 3 2 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n";
    let csv =
        b"patient,sex,dose,lab,seen,label\np1,f,1.5,200,2020-02-29,ill\np2,\"m\",2.25e1,180,2020-03-01 12:00,well\n\
        p3,f,-4.0,?,2021-01-01,ill\np4,m,0.25,220,2019-12-31,well\n";
    vec![
        (".nii", stored(".nii")),
        (".nii.gz", stored(".nii.gz")),
        (".nrrd", [&nrrd[..], &values].concat()),
        (".mha", [&mha[..], &encoder.finish().unwrap()].concat()),
        (".csv", csv.to_vec()),
    ]
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
    for (ending, seed) in seeds() {
        assert!(entry::ENDINGS.contains(&ending) && entry::try_file(ending, &seed), "{ending}");
        let read = (0..400).filter(|&number| entry::try_file(ending, &damaged(&seed, number))).count();
        // Damage that changes only values or blanks is read; most is refused.
        assert!((1..380).contains(&read) || ending == ".nii.gz", "{ending}: {read}");
    }
}
