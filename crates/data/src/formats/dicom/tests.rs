//! Files made here, whole and hostile, and the real ones beside the checkout.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use nocebo_core::Label;
use tempfile::TempDir;

use super::child::Reader;
use super::write::{Elements, elements_of, file_of};
use super::*;
use crate::formats::tests::shared;
use crate::{Fractions, formats};

const LITTLE: &str = "1.2.840.10008.1.2.1";
const RLE: &str = "1.2.840.10008.1.2.5";
const JPEG: &str = "1.2.840.10008.1.2.4.50";
const JPEG_2000: &str = "1.2.840.10008.1.2.4.90";

/// Makes this test program able to read files; the child runs the test [`reads_files`].
fn isolated() {
    isolate(&["formats::dicom::tests::reads_files", "--exact", "--nocapture", "--test-threads=1"]);
}

#[test]
fn reads_files() {
    isolated();
}

fn new(stored: &[i32], shape: [usize; 4], bits: u16) -> NewImage<'_> {
    NewImage {
        modality: "CT",
        shape,
        stored,
        bits,
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
    }
}

/// Two rows of three pixels of 12 bits: 0, 1, 2, 1023, 1024, 4095.
fn small() -> Elements {
    elements_of("small", &new(&[0, 1, 2, 1023, 1024, 4095], [1, 1, 2, 3], 12)).unwrap()
}

/// Four pixels of 8 bits in one row.
fn bytes_of(pixels: [u8; 4]) -> Elements {
    let stored = pixels.map(i32::from);
    let mut elements = elements_of("bytes", &NewImage { intercept: 0.0, ..new(&stored, [1, 1, 1, 4], 8) }).unwrap();
    elements.text(tags::MODALITY, *b"CS", "OT");
    elements
}

fn file(elements: &Elements) -> Vec<u8> {
    file_of(elements, LITTLE, &elements.encode())
}

fn read(bytes: &[u8]) -> Result<Image, DataError> {
    decode("f.dcm", bytes, Limits::default())
}

/// The message of a file that must be refused.
fn refused(bytes: &[u8]) -> String {
    let start = Instant::now();
    let error = read(bytes).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2), "{error}");
    let text = error.to_string();
    assert!(text.contains("f.dcm"), "{text}");
    text
}

fn changed(change: impl FnOnce(&mut Elements)) -> Vec<u8> {
    let mut elements = small();
    change(&mut elements);
    file(&elements)
}

/// A file whose pixels are the given fragments.
fn compressed(mut elements: Elements, syntax: &str, fragments: &[&[u8]]) -> Vec<u8> {
    elements.remove(tags::PIXEL_DATA);
    let mut data = elements.encode();
    data.extend(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff");
    for fragment in fragments {
        data.extend(b"\xfe\xff\0\xe0");
        data.extend((fragment.len() as u32).to_le_bytes());
        data.extend(*fragment);
    }
    data.extend(b"\xfe\xff\xdd\xe0\0\0\0\0");
    file_of(&elements, syntax, &data)
}

#[test]
fn a_ct_image_is_in_hounsfield_units_with_the_bounds_of_its_type() {
    let image = read(&file(&small())).unwrap();
    assert_eq!(image.values, [-1024.0, -1023.0, -1022.0, -1.0, 0.0, 3071.0]);
    assert_eq!((image.shape, image.unit.as_deref(), image.bounds), ([1, 1, 2, 3], Some("HU"), (-1024.0, 3071.0)));
    assert_eq!((image.windows.as_slice(), image.spacing), ([[40.0, 400.0]].as_slice(), Some([0.5, 0.5])));
    assert_eq!(image.patient.unwrap().len(), 32);
}

#[test]
fn d1_lengths_past_the_end_are_refused_before_anything_is_reserved() {
    for length in [0xffff_fffeu32, 0x7fff_fffe] {
        for (tag, vr) in [([0xe0, 0x7f, 0x10, 0], b"OB"), ([9, 0, 0, 0], b"UT")] {
            let mut data = tag.to_vec();
            data.extend(vr);
            data.extend([0, 0]);
            data.extend(length.to_le_bytes());
            let message = refused(&file_of(&small(), LITTLE, &data));
            assert!(message.contains(&length.to_string()), "{message}");
        }
    }
}

#[test]
fn d2_sequences_are_followed_to_a_depth_of_256() {
    let nested = |depth: usize| {
        let mut data = b"\x08\0\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff".repeat(depth);
        data.extend(b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0".repeat(depth));
        file_of(&small(), LITTLE, &data)
    };
    assert!(refused(&nested(256)).contains("an image with pixel data"));
    for depth in [257, 2_000, 100_000] {
        assert!(refused(&nested(depth)).contains("limit of 256"), "{depth}");
    }
    let delimiters = b"\xfe\xff\x0d\xe0\0\0\0\0".repeat(1_000_000);
    refused(&file_of(&small(), LITTLE, &delimiters));
}

#[test]
fn d3_a_deflated_data_set_is_read_and_a_bomb_is_not() {
    let deflated = |data: &[u8]| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        file_of(&small(), "1.2.840.10008.1.2.1.99", &encoder.finish().unwrap())
    };
    assert_eq!(read(&deflated(&small().encode())).unwrap().values[5], 3071.0);
    assert!(refused(&deflated(&vec![0; 20 << 20])).contains("above the limit"));
    assert!(refused(&file_of(&small(), "1.2.840.10008.1.2.1.99", b"\xff\xff\xff")).contains("deflate"));
}

#[test]
fn d4_to_d7_sizes_and_depths_that_cannot_be_are_refused() {
    let huge = changed(|elements| {
        elements.short(tags::ROWS, 65535);
        elements.short(tags::COLUMNS, 65535);
        elements.text(tags::FRAMES, *b"IS", "2147483647");
    });
    assert!(refused(&huge).contains("above the limit"));
    let long = changed(|elements| elements.put(tags::ROWS, *b"UL", vec![2, 0, 0, 0]));
    assert!(refused(&long).contains("(0028,0010)"));
    for frames in ["2147483648", "-1", "0", "abc", "1.5", "99999999999999999999"] {
        assert!(
            refused(&changed(|elements| elements.text(tags::FRAMES, *b"IS", frames))).contains("frames"),
            "{frames}"
        );
    }
    assert!(read(&changed(|elements| elements.text(tags::FRAMES, *b"IS", ""))).is_ok());
    for (allocated, stored, high) in [(0, 1, 0), (7, 7, 6), (64, 12, 11), (16, 17, 16), (16, 12, 15), (16, 0, 0)] {
        let wrong = changed(|elements| {
            elements.short(tags::BITS_ALLOCATED, allocated);
            elements.short(tags::BITS_STORED, stored);
            elements.short(tags::HIGH_BIT, high);
        });
        assert!(refused(&wrong).contains("(0028,010"), "{allocated} {stored} {high}");
    }
    assert!(refused(&changed(|elements| elements.remove(tags::ROWS))).contains("(0028,0010)"));
    assert!(refused(&changed(|elements| elements.short(tags::COLUMNS, 0))).contains("from 1"));
}

#[test]
fn d8_pixel_data_are_as_long_as_the_image() {
    let with = |length: usize| changed(|elements| elements.put(tags::PIXEL_DATA, *b"OW", vec![0; length]));
    assert!(refused(&with(10)).contains("expected 12 bytes"));
    assert!(read(&with(12)).unwrap().warnings.is_empty());
    assert!(read(&with(20)).unwrap().warnings[0].contains("8 bytes after"));
    let mut odd = bytes_of([1, 2, 3, 4]);
    odd.short(tags::COLUMNS, 3);
    assert!(read(&file(&odd)).unwrap().warnings.is_empty());
    let whole = file(&small());
    for length in 0..whole.len() {
        // Cut between two attributes a file is whole, but its pixels come last.
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
}

#[test]
fn d9_frames_are_found_by_the_table_of_offsets_or_not_at_all() {
    let runs: &[u8] = &[&[1, 0, 0, 0, 64, 0, 0, 0][..], &[0; 56], &[3, 1, 2, 3, 4]].concat();
    let mut two = bytes_of([0; 4]);
    two.text(tags::FRAMES, *b"IS", "2");
    let good = compressed(two, RLE, &[&[0, 0, 0, 0, 77, 0, 0, 0], runs, runs]);
    assert_eq!(read(&good).unwrap().values, [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
    let with = |table: &[u8], parts: &[&[u8]]| {
        let mut two = bytes_of([0; 4]);
        two.text(tags::FRAMES, *b"IS", "2");
        refused(&compressed(two, RLE, &[&[table], parts].concat()))
    };
    for table in [[0, 0, 0, 0, 99, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0], [77, 0, 0, 0, 0, 0, 0, 0], [0xff; 8]] {
        assert!(with(&table, &[runs, runs]).contains("offsets"), "{table:?}");
    }
    assert!(with(&[], &[runs]).contains("2 frames"));
    assert!(with(&[], &[]).contains("fragment"));
    refused(&compressed(bytes_of([0; 4]), RLE, &[]));
}

#[test]
fn d10_pixels_that_are_not_what_the_transfer_syntax_says_are_refused() {
    assert!(refused(&compressed(bytes_of([0; 4]), JPEG, &[&[], &[1, 2, 3, 4]])).contains("JPEG stream"));
    assert!(refused(&compressed(bytes_of([0; 4]), JPEG_2000, &[&[], &[1, 2, 3, 4]])).contains("JPEG 2000"));
    assert!(refused(&file_of(&small(), JPEG, &small().encode())).contains("compressed pixels"));
    let unknown = refused(&file_of(&small(), "1.2.840.10008.1.2.4.102", &small().encode()));
    assert!(unknown.contains("1.2.840.10008.1.2.4.102") || unknown.contains("compressed"), "{unknown}");
    // Explicit bytes in a file that calls itself implicit, big endian, and the other way round.
    refused(&file_of(&small(), "1.2.840.10008.1.2", &small().encode()));
    refused(&file_of(&small(), "1.2.840.10008.1.2.2", &small().encode()));
    let implicit = b"\x08\0\x60\0\x02\0\0\0CT\x28\0\x10\0\x02\0\0\0\x02\0";
    assert!(refused(&file_of(&small(), LITTLE, implicit)).contains("two letters"));
    assert!(refused(&file_of(&small(), "", &small().encode())).contains("(0002,0010)"));
}

#[test]
fn d11_streams_of_another_size_are_refused() {
    let head = |first: u8| [&[1, 0, 0, 0, first, 0, 0, 0][..], &[0; 56]].concat();
    let with = |stream: &[u8]| refused(&compressed(bytes_of([0; 4]), RLE, &[&[], stream]));
    assert!(with(&[head(64), vec![1, 1, 2]].concat()).contains("got 2 of segment 0"));
    assert!(with(&[head(64), vec![3, 1, 2]].concat()).contains("a whole run"));
    assert!(with(&head(200)).contains("offsets"));
    assert!(with(&[2; 64]).contains("segments"));
    assert!(with(&[]).contains("segments"));
    // A run that goes past the last pixel is cut, as the last byte of padding is.
    let long = compressed(bytes_of([0; 4]), RLE, &[&[], &[head(64), vec![0x80, 0xf0, 9]].concat()]);
    assert_eq!(read(&long).unwrap().values, [9.0; 4]);
    let size = [&[0xff, 0x4f, 0xff, 0x51, 0, 41, 0, 0][..], &[0, 0, 1, 0, 0, 0, 1, 0], &[0; 40]].concat();
    assert!(refused(&compressed(bytes_of([0; 4]), JPEG_2000, &[&[], &size])).contains("256 columns, 256 rows"));
}

#[test]
fn d12_numbers_outside_of_a_palette_have_its_nearest_colour() {
    let palette = |length: u16, entries: &[u16]| {
        let mut elements = bytes_of([0, 1, 2, 255]);
        elements.text(tags::PHOTOMETRIC, *b"CS", "PALETTE COLOR");
        for (channel, (descriptor, data)) in tags::PALETTES.into_iter().enumerate() {
            let shorts = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
            elements.put(descriptor, *b"US", shorts(&[length, 1, 16]));
            let entries: Vec<u16> = entries.iter().map(|entry| entry + channel as u16).collect();
            elements.put(data, *b"OW", shorts(&entries));
        }
        file(&elements)
    };
    let image = read(&palette(2, &[100, 200])).unwrap();
    assert_eq!(image.values, [100.0, 100.0, 200.0, 200.0, 101.0, 101.0, 201.0, 201.0, 102.0, 102.0, 202.0, 202.0]);
    assert_eq!((image.shape, image.bounds), ([3, 1, 1, 4], (0.0, 65535.0)));
    assert_eq!(read(&palette(1, &[7])).unwrap().values[..4], [7.0; 4]);
    assert!(refused(&palette(3, &[100, 200])).contains("3 entries"));
    assert!(refused(&palette(0, &[100, 200])).contains("65536 entries"));
    let mut none = bytes_of([0; 4]);
    none.text(tags::PHOTOMETRIC, *b"CS", "PALETTE COLOR");
    assert!(refused(&file(&none)).contains("table"));
}

#[test]
fn d13_slopes_that_cannot_be_are_refused_and_windows_ignored() {
    let slope = |text: &str| changed(|elements| elements.text(tags::RESCALE_SLOPE, *b"DS", text));
    for text in ["0", "nan", "inf", "abc", "1\\2", "1e308"] {
        refused(&slope(text));
    }
    assert_eq!(read(&slope("")).unwrap().values[1], -1023.0);
    assert_eq!(read(&slope("-2")).unwrap().values[1], -1026.0);
    assert_eq!(read(&slope("-2")).unwrap().bounds, (-9214.0, -1024.0));
    for width in ["0", "-1", "x"] {
        assert!(
            read(&changed(|elements| elements.text(tags::WINDOW_WIDTH, *b"DS", width))).unwrap().windows.is_empty()
        );
    }
}

#[test]
fn d14_every_kind_of_pixel_is_what_the_standard_says() {
    let mut sample = bytes_of([0, 10, 200, 255]);
    sample.text(tags::PHOTOMETRIC, *b"CS", "MONOCHROME1");
    assert!(read(&file(&sample)).unwrap().inverted);

    let colours = |photometric: &str, planar: u16, columns: u16, pixels: &[u8]| {
        let mut elements = bytes_of([0; 4]);
        elements.short(tags::SAMPLES_PER_PIXEL, 3);
        elements.text(tags::PHOTOMETRIC, *b"CS", photometric);
        elements.short(tags::PLANAR, planar);
        elements.short(tags::COLUMNS, columns);
        elements.put(tags::PIXEL_DATA, *b"OB", pixels.to_vec());
        file(&elements)
    };
    let by_pixel = read(&colours("RGB", 0, 2, &[1, 2, 3, 4, 5, 6])).unwrap();
    assert_eq!((by_pixel.values.as_slice(), by_pixel.shape), ([1.0, 4.0, 2.0, 5.0, 3.0, 6.0].as_slice(), [3, 1, 1, 2]));
    assert_eq!(read(&colours("RGB", 1, 2, &[1, 4, 2, 5, 3, 6])).unwrap().values, by_pixel.values);
    // Pure red in luminance and chrominance, rounded to whole numbers.
    let red = read(&colours("YBR_FULL", 0, 1, &[76, 85, 255])).unwrap();
    assert_eq!(red.values, [254.0, 0.0, 0.0]);
    let two = read(&colours("YBR_FULL_422", 0, 2, &[76, 150, 85, 255])).unwrap();
    assert_eq!(two.values, [254.0, 255.0, 0.0, 74.0, 0.0, 74.0]);
    for (photometric, columns) in [("YBR_FULL_422", 1), ("ARGB", 2), ("MONOCHROME2", 2), ("YBR_PARTIAL_420", 2)] {
        refused(&colours(photometric, 0, columns, &[0; 12]));
    }

    let mut bits = bytes_of([0; 4]);
    for tag in [tags::BITS_ALLOCATED, tags::BITS_STORED] {
        bits.short(tag, 1);
    }
    bits.short(tags::HIGH_BIT, 0);
    bits.text(tags::FRAMES, *b"IS", "3");
    bits.put(tags::PIXEL_DATA, *b"OB", vec![0b0010_0101, 0b0000_1000]);
    let image = read(&file(&bits)).unwrap();
    assert_eq!(image.values, [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    assert_eq!((image.shape, image.bounds), ([1, 3, 1, 4], (0.0, 1.0)));

    let wide = changed(|elements| {
        for tag in [tags::BITS_ALLOCATED, tags::BITS_STORED] {
            elements.short(tag, 32);
        }
        elements.short(tags::HIGH_BIT, 31);
        elements.short(tags::ROWS, 1);
        elements.short(tags::COLUMNS, 2);
        elements.text(tags::RESCALE_INTERCEPT, *b"DS", "0");
        elements.put(tags::PIXEL_DATA, *b"OW", [u32::MAX.to_le_bytes(), 7u32.to_le_bytes()].concat());
    });
    assert_eq!(read(&wide).unwrap().values, [u32::MAX as f32, 7.0]);
}

#[test]
fn signs_unused_bits_and_modality_tables_are_honoured() {
    let signed = changed(|elements| {
        elements.short(tags::PIXEL_REPRESENTATION, 1);
        // -1 and -2048 in 12 bits, with something in the four bits above.
        let words = [0x0fffu16, 0xafff, 0x0800, 0x07ff, 0, 1];
        elements.put(tags::PIXEL_DATA, *b"OW", words.iter().flat_map(|word| word.to_le_bytes()).collect());
    });
    assert_eq!(read(&signed).unwrap().values, [-1025.0, -1025.0, -3072.0, 1023.0, -1024.0, -1023.0]);

    let mut item = Elements::default();
    let shorts = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    item.put(tags::LUT_DESCRIPTOR, *b"US", shorts(&[3, 1, 16]));
    item.put(tags::LUT_DATA, *b"OW", shorts(&[5, 50, 500]));
    let item = item.encode();
    let table = changed(|elements| {
        let value = [b"\xfe\xff\0\xe0".as_slice(), &(item.len() as u32).to_le_bytes(), &item].concat();
        elements.put(tags::MODALITY_LUT_SEQUENCE, *b"SQ", value);
    });
    let image = read(&table).unwrap();
    assert_eq!(
        (image.values.as_slice(), image.storage),
        ([5.0, 5.0, 50.0, 500.0, 500.0, 500.0].as_slice(), Storage::Table)
    );
}

#[test]
fn d15_to_d18_strange_headers_are_noticed_and_never_shown() {
    let mut program = file(&small());
    program[..2].copy_from_slice(b"MZ");
    assert!(read(&program).unwrap().warnings[0].contains("another kind"));
    assert!(refused(&file(&small())[132..]).contains("DICM"));
    // The length of the meta group is not needed.
    let mut lying = file(&small());
    lying[140..144].copy_from_slice(&[0xff; 4]);
    assert!(read(&lying).is_ok());

    let twice = [small().encode(), b"\x28\0\x10\0US\x02\0\x09\0".to_vec()].concat();
    let image = read(&file_of(&small(), LITTLE, &twice)).unwrap();
    assert!(image.shape == [1, 1, 2, 3] && image.warnings[0].contains("twice"));

    let hostile = "\u{1b}[31m=cmd|<script>CANARY";
    for tag in [tags::FRAMES, tags::RESCALE_SLOPE, tags::PHOTOMETRIC, tags::PIXEL_SPACING, tags::BITS_STORED] {
        let text = refused(&changed(|elements| elements.text(tag, *b"LO", hostile)));
        assert!(!text.contains("CANARY") && !text.contains('\u{1b}'), "{text:?}");
    }
    let text = refused(&file_of(&small(), hostile, &small().encode()));
    assert!(!text.contains("CANARY") && !text.contains('\u{1b}'), "{text:?}");
    let text = refused(&changed(|elements| {
        elements.text(tags::MODALITY, *b"CS", hostile);
        elements.remove(tags::PIXEL_DATA);
    }));
    assert!(!text.contains('\u{1b}') && !text.contains('<'), "{text:?}");
    let named = changed(|elements| elements.put(tags::PATIENT_NAME, *b"UT", vec![b'X'; 1 << 20]));
    assert!(!format!("{:?}", read(&named).unwrap()).contains("XXXX"));
}

#[test]
fn d20_to_d23_indexes_and_objects_that_are_no_images_are_refused() {
    let mut index = small();
    index.text(tags::SOP_CLASS, *b"UI", "1.2.840.10008.1.3.10");
    index.put((4, 0x1500), *b"CS", b"..\\..\\secret".to_vec());
    let message = refused(&file(&index));
    assert!(message.contains("DICOMDIR") && !message.contains("secret"), "{message}");
    let report = changed(|elements| {
        elements.text(tags::MODALITY, *b"CS", "SR");
        elements.remove(tags::PIXEL_DATA);
    });
    assert!(refused(&report).contains("an object of modality SR"));
    assert!(read(&changed(|elements| elements.text(tags::BURNED_IN, *b"CS", "YES"))).unwrap().burned_in);
}

/// A folder `ct` of two classes with two images of each of three patients, of 4 by 4 pixels.
fn folder(change: impl Fn(usize, &mut Elements)) -> TempDir {
    let parent = tempfile::tempdir().unwrap();
    for class in ["healthy", "sick"] {
        fs::create_dir_all(parent.path().join("ct").join(class)).unwrap();
    }
    for at in 0..12 {
        let class = ["healthy", "sick"][at % 2];
        let stored: Vec<i32> = (0..16).map(|pixel| (pixel * 100 + at * 7) as i32).collect();
        let patient = format!("patient-{}", at / 2 % 3);
        let image = NewImage { patient: &patient, number: at as u32, ..new(&stored, [1, 1, 4, 4], 12) };
        let mut elements = elements_of("image", &image).unwrap();
        change(at, &mut elements);
        fs::write(parent.path().join(format!("ct/{class}/1.2.{at}")), file(&elements)).unwrap();
    }
    parent
}

fn all() -> OpenOptions {
    OpenOptions { fractions: Fractions { train: 1.0, validation: 0.0, test: 0.0 }, ..OpenOptions::default() }
}

#[test]
fn a_folder_is_read_with_classes_units_and_patients() {
    isolated();
    let parent = folder(|_, _| {});
    fs::write(parent.path().join("ct/sick/notes.txt"), "x").unwrap();
    let data = crate::open_with(parent.path().join("ct"), Split::Train, &all()).unwrap();
    assert_eq!((data.len(), data.samples().shape()), (12, [1, 4, 4].as_slice()));
    assert_eq!(data.class_names(), ["healthy", "sick"]);
    assert_eq!(data.labels()[6], Label::Class(1));
    let domain = data.domain();
    assert_eq!((domain.unit(), domain.resolution()[0]), (&Unit::Hounsfield, 1.0));
    assert_eq!((domain.lower()[0], domain.upper()[0]), (-1024.0, 3071.0));
    let patients: BTreeSet<&String> = data.patients().unwrap().iter().collect();
    assert!(patients.len() == 3 && !patients.iter().any(|key| key.contains("patient")));
    assert!(matches!(data.warnings(), [Warning::SkippedFile { file, .. }] if file == "sick/notes.txt"));
    // Whole patients go to one side.
    let parts =
        [Split::Train, Split::Validation, Split::Test].map(|split| crate::open(parent.path().join("ct"), split));
    assert_eq!(parts.map(|part| part.unwrap().len()), [4, 4, 4]);

    let window = OpenOptions { window: Some((-500.0, 900.5)), ..all() };
    let data = crate::open_with(parent.path().join("ct"), Split::Train, &window).unwrap();
    assert_eq!((data.domain().lower()[0], data.domain().upper()[0]), (-950.0, -50.0));
    assert_eq!(data.samples().row(0)[..3], [-950.0, -924.0, -824.0]);
}

#[test]
fn d19_and_d22_images_that_do_not_belong_together_are_refused_or_noticed() {
    isolated();
    let open = |parent: &TempDir| crate::open_with(parent.path().join("ct"), Split::Train, &all());
    let same = folder(|_, elements| elements.text(tags::SOP_INSTANCE, *b"UI", "../../x"));
    assert!(open(&same).unwrap_err().to_string().contains("(0008,0018)"));
    let climbing = folder(|at, elements| elements.text(tags::SOP_INSTANCE, *b"UI", &format!("../../x{at}")));
    assert!(open(&climbing).is_ok());
    let spaced = folder(|at, elements| elements.decimals(tags::PIXEL_SPACING, &[0.5, 0.5 + f64::from(at == 3)]));
    let warnings = open(&spaced).unwrap().warnings().to_vec();
    assert!(matches!(&warnings[..], [Warning::Assumption { text }] if text.contains("2 different pixel spacings")));
    let scaled = folder(|at, elements| elements.decimals(tags::RESCALE_SLOPE, &[1.0 + f64::from(at == 3)]));
    let message = open(&scaled).unwrap_err().to_string();
    assert!(message.contains("sick/1.2.3") && message.contains("slope 2"), "{message}");
    let split = folder(|_, _| {});
    fs::create_dir(split.path().join("parts")).unwrap();
    fs::create_dir(split.path().join("parts/train")).unwrap();
    fs::rename(split.path().join("ct"), split.path().join("parts/test")).unwrap();
    for class in ["healthy", "sick"] {
        fs::create_dir(split.path().join("parts/train").join(class)).unwrap();
    }
    for (class, at) in [("healthy", 0), ("sick", 1)] {
        let file = format!("{class}/1.2.{at}");
        fs::rename(split.path().join("parts/test").join(&file), split.path().join("parts/train").join(&file)).unwrap();
    }
    let test = crate::open(split.path().join("parts"), Split::Test).unwrap();
    assert_eq!(test.warnings(), [Warning::SamePatient { splits: (Split::Train, Split::Test), patients: 1 }]);
}

#[test]
fn an_index_beside_the_images_leads_nowhere() {
    isolated();
    let parent = folder(|_, _| {});
    fs::write(parent.path().join("secret"), file(&small())).unwrap();
    let mut index = small();
    index.text(tags::SOP_CLASS, *b"UI", "1.2.840.10008.1.3.10");
    index.put((4, 0x1500), *b"CS", b"..\\secret".to_vec());
    fs::write(parent.path().join("ct/DICOMDIR"), file(&index)).unwrap();
    let data = crate::open_with(parent.path().join("ct"), Split::Train, &all()).unwrap();
    assert_eq!(data.len(), 12);
    assert!(matches!(data.warnings(), [Warning::SkippedFile { file, .. }] if file == "DICOMDIR"));
    let message = crate::open(parent.path().join("ct/DICOMDIR"), Split::Train).unwrap_err().to_string();
    assert!(message.contains("never followed"), "{message}");
    let table = "file,label\n../secret,a\nhealthy/1.2.0,b\n";
    fs::write(parent.path().join("ct/labels.csv"), table).unwrap();
    assert!(crate::open(parent.path().join("ct"), Split::Train).unwrap_err().to_string().contains("inside the folder"));
}

#[test]
fn perturbed_copies_are_read_back_as_they_were_written_and_name_nobody() {
    isolated();
    for (slope, inverted) in [("1", false), ("0.3", false), ("-0.3", true)] {
        let parent = folder(|at, elements| {
            elements.text(tags::RESCALE_SLOPE, *b"DS", slope);
            elements.text(tags::PATIENT_ID, *b"LO", &format!("CANARY-{}", at / 4));
            elements.text(tags::PATIENT_NAME, *b"PN", "CANARY^JANE");
            elements.text(tags::SERIES_DESCRIPTION, *b"LO", "CANARY");
            elements.text((0x0020, 0x1041), *b"DS", "CANARY");
            elements.text((0x0018, 0x5100), *b"CS", "HFS");
            elements.text((0x0009, 0x1001), *b"LO", "CANARY");
            if inverted {
                elements.text(tags::MODALITY, *b"CS", "CR");
                elements.text(tags::PHOTOMETRIC, *b"CS", "MONOCHROME1");
            }
        });
        let options = OpenOptions { window: Some(if inverted { (-2000.0, 300.0) } else { (-500.0, 900.0) }), ..all() };
        let data = crate::open_with(parent.path().join("ct"), Split::Train, &options).unwrap();
        let domain = data.domain();
        let mut samples = data.samples().clone();
        for (at, value) in samples.values_mut().iter_mut().enumerate() {
            *value += ((at % 7) as f32 - 3.0) * domain.resolution()[0];
        }
        samples.rows_mut().for_each(|row| domain.store(row));
        let perturbed = data.clone().with_samples(samples).unwrap();
        let out = parent.path().join("out");
        crate::write(&out, &perturbed).unwrap();

        let crate::dataset::Form::Dicom(sources) = data.form() else { panic!("no DICOM files") };
        for (row, source) in sources.iter().enumerate() {
            let (before, after) =
                (read(&fs::read(source).unwrap()).unwrap(), fs::read(out.join(format!("{row:06}.dcm"))).unwrap());
            let text = String::from_utf8_lossy(&after);
            assert!(
                !text.contains("CANARY") && text.contains("NOT FOR CLINICAL USE") && text.contains("HFS"),
                "{text}"
            );
            let after = read(&after).unwrap();
            assert_eq!((after.shape, after.storage, after.inverted), (before.shape, before.storage, before.inverted));
            assert!(after.instance != before.instance && after.study != before.study);
            let step = f64::from(domain.resolution()[0]);
            for (old, new) in before.values.iter().zip(&after.values) {
                let steps = (f64::from(*new) - f64::from(*old)) / step;
                assert!((steps - steps.round()).abs() < 1e-2 && steps.abs() < 3.01, "{old} {new}");
                let turned = if inverted { (before.bounds.0 + before.bounds.1) as f32 - old } else { *old };
                assert!((domain.lower()[0]..=domain.upper()[0]).contains(&turned) || old == new, "{old} {new}");
            }
        }
        let back = crate::read_back(&out, &perturbed).unwrap();
        let inside = |row: usize, at: usize| {
            let value = data.samples().row(row)[at];
            value > domain.lower()[0] && value < domain.upper()[0]
        };
        for row in 0..12 {
            for at in (0..16).filter(|&at| inside(row, at)) {
                let (wanted, got) = (perturbed.samples().row(row)[at], back.row(row)[at]);
                assert!((wanted - got).abs() < 1e-3, "{wanted} {got}");
            }
        }
        let table = fs::read_to_string(out.join("labels.csv")).unwrap();
        assert!(table.contains("000000.dcm,healthy,p1") && !table.contains("CANARY"), "{table}");
        let again = crate::open_with(&out, Split::Train, &options).unwrap();
        assert_eq!((again.labels(), again.domain()), (data.labels(), data.domain()));
        assert!(matches!(crate::write(&out, &perturbed), Err(DataError::Exists { .. })));
    }
}

#[test]
fn a_data_set_that_is_written_is_read_back() {
    isolated();
    let parent = tempfile::tempdir().unwrap();
    let grey = crate::dataset::tests::grey(&[&[1, 2], &[3, 255], &[0, 9]], &[0, 1, 1])
        .with_patients(vec!["a".into(), "b".into(), "b".into()])
        .unwrap();
    let acquisition =
        Acquisition { modality: "US", spacing: Some([0.1, 0.2]), thickness: None, window: None, description: "made" };
    write_dataset(&parent.path().join("out"), &grey, &acquisition).unwrap();
    let again = crate::open_with(parent.path().join("out"), Split::Train, &all()).unwrap();
    assert_eq!((again.samples().values(), again.labels()), (grey.samples().values(), grey.labels()));
    assert_eq!((again.domain(), again.patients()), (grey.domain(), grey.patients()));
}

#[test]
fn a_child_that_dies_or_does_not_end_is_named_and_replaced() {
    isolated();
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("f.dcm");
    let mut reader = Reader::default();
    // 40 000 by 40 000 pixels of 8 bits from a few bytes: 1.6 GB that the child is not given.
    let mut large = bytes_of([0; 4]);
    large.short(tags::ROWS, 40_000);
    large.short(tags::COLUMNS, 40_000);
    fs::write(&path, compressed(large, RLE, &[&[], &[&[1, 0, 0, 0, 64][..], &[0; 59]].concat()])).unwrap();
    let start = Instant::now();
    let message = reader.read(&path, "f.dcm", u64::MAX, true).unwrap_err().to_string();
    assert!(message.contains("512 MiB") && message.contains("f.dcm"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    fs::write(&path, file(&small())).unwrap();
    assert_eq!(reader.read(&path, "f.dcm", 100, true).unwrap().values[4], 0.0);
    assert!(reader.read(&path, "f.dcm", 100, false).unwrap().values.is_empty());
    assert!(reader.read(&path, "f.dcm", 5, true).unwrap_err().to_string().contains("limit of 5"));
    assert!(reader.read(&parent.path().join("none"), "none", 100, true).unwrap_err().to_string().contains("none"));
    assert!(reader.read(parent.path(), "folder", 100, true).unwrap_err().to_string().contains("regular file"));
}

/// Computes for ever under the limits of the child, where the test below asks for it.
#[test]
fn computes_without_an_end() {
    if std::env::var_os("NOCEBO_TEST_COMPUTES").is_some() {
        let (memory, seconds) = child::allowance(0);
        child::limits::set(memory, seconds).unwrap();
        let mut sum = 0_u64;
        loop {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_computes_too_long_is_stopped_after_its_processor_time() {
    use std::process::Command;
    assert_eq!(child::allowance(0), (512 << 20, 2));
    let start = Instant::now();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["formats::dicom::tests::computes_without_an_end", "--exact", "--test-threads=1"])
        .env("NOCEBO_TEST_COMPUTES", "1")
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    let message = child::died("f.dcm", Some(status), 512 << 20, 2).to_string();
    assert!(message.contains("more than 2 s of processor time"), "{message} {status}");
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn real_files_are_read_or_refused_by_name_in_time() {
    isolated();
    let Some(path) = shared("dicom-pydicom") else { return };
    let mut reader = Reader::default();
    let (mut images, mut refused) = (0, 0);
    for folder in ["test_files", "pydicom-data", "charset_files", "dcmqi/segmentations", "dcmqi/paramaps"] {
        let (_, files) = formats::folder::entries(&path.join(folder), folder).unwrap();
        // Thirty frames take seconds without optimisation.
        for name in files.iter().filter(|name| is_named_so(name) && *name != "examples_ybr_color.dcm") {
            let start = Instant::now();
            match reader.read(&path.join(folder).join(name), name, 1 << 26, true) {
                Ok(image) => {
                    images += 1;
                    assert_eq!(image.values.len(), image.shape.iter().product::<usize>(), "{name}");
                }
                Err(error) => {
                    refused += 1;
                    // A machine that builds beside the test is slow.
                    assert!(start.elapsed() < Duration::from_secs(10), "{name}: {:?}", start.elapsed());
                    assert!(error.to_string().contains(name.as_str()), "{error}");
                }
            }
        }
    }
    assert!(images >= 100 && refused >= 20, "{images} images, {refused} refused");
}
