//! DICOM files with changed bytes: whatever they say, nothing panics.

#![expect(clippy::unwrap_used, reason = "a file that cannot be made is a failed test")]

mod entry;

use nocebo_core::Seed;
use nocebo_data::formats::dicom::{NewImage, write_image};
use rand::RngExt;

const UNCOMPRESSED: &[u8] = b"1.2.840.10008.1.2.1\0";

/// A small image, and the same with its pixels in one fragment of another transfer syntax.
fn files() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.dcm");
    let image = NewImage {
        modality: "CT",
        shape: [1, 1, 2, 2],
        stored: &[0, 1, 2, 255],
        bits: 8,
        signed: false,
        slope: 1.0,
        intercept: -1024.0,
        spacing: Some([0.5, 0.5]),
        thickness: None,
        window: Some([40.0, 400.0]),
        patient: "made-up",
        series: "1",
        number: 1,
        description: "test",
    };
    write_image(&path, &image).unwrap();
    let plain = std::fs::read(&path).unwrap();
    let runs = [&[1, 0, 0, 0, 64, 0, 0, 0][..], &[0; 56], &[3, 0, 1, 2, 255, 0]].concat();
    // A frame header of 2 by 2 pixels, then tables and data that the changes below make up.
    let jpeg = b"\xff\xd8\xff\xc0\0\x0b\x08\0\x02\0\x02\x01\x01\x11\0\xff\xdb\0\x43\0\
        0123456789012345678901234567890123456789012345678901234567890123\
        \xff\xc4\0\x15\0\x02\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02\
        \xff\xc4\0\x15\x10\x02\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x12\
        \xff\xda\0\x08\x01\x01\0\0\x3f\0\x5a\xa5\x3c\x99\x12\x00\xff\xd9";
    let jpeg_ls = b"\xff\xd8\xff\xf7\0\x0b\x08\0\x02\0\x02\x01\x01\x11\0\xff\xda\0\x08\x01\x01\0\0\0\0\x5a\xa5\x3c\x99\x12\x03\x70\xff\xd9";
    let with = |syntax: &[u8], stream: &[u8]| {
        let at = plain.windows(UNCOMPRESSED.len()).position(|window| window == UNCOMPRESSED).unwrap();
        let start = at + UNCOMPRESSED.len();
        // The identifier gets another length, which the length of the meta group need not follow.
        let head = [&plain[..at - 2], &(syntax.len() as u16).to_le_bytes(), syntax].concat();
        let pixels = plain.windows(4).rposition(|window| window == b"\xe0\x7f\x10\0").unwrap();
        let item = |bytes: &[u8]| [b"\xfe\xff\0\xe0", &(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
        let tail =
            [b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff", &item(&[])[..], &item(stream), b"\xfe\xff\xdd\xe0\0\0\0\0"];
        [head, plain[start..pixels].to_vec(), tail.concat()].concat()
    };
    vec![
        with(b"1.2.840.10008.1.2.5\0", &runs),
        with(b"1.2.840.10008.1.2.4.50", jpeg),
        with(b"1.2.840.10008.1.2.4.80", jpeg_ls),
        plain,
    ]
}

#[test]
fn changed_bytes_never_panic() {
    let files = files();
    let mut generator = Seed(3).for_sample(0);
    for round in 0..8000 {
        let mut bytes = files[round % files.len()].clone();
        entry::try_image(&bytes);
        // Half of the changes are in the pixels, which come last.
        let start = if round % 8 < 4 { 132 } else { bytes.len() - 60 };
        for _ in 0..=round % 3 {
            let at = generator.random_range(start..bytes.len());
            bytes[at] = if round % 5 == 0 { [0, 0xff][round % 2] } else { generator.random() };
        }
        entry::try_image(&bytes);
    }
}
