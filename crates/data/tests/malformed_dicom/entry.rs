//! What is done with a file that may hold anything; shared by the tests and by `fuzz/`.

use nocebo_data::Limits;
use nocebo_data::formats::dicom;

/// Decodes an image of at most a million values.
///
/// # Panics
///
/// When something panics on the way, or an image has another number of values than its shape says, or one outside its bounds.
pub(crate) fn try_image(bytes: &[u8]) {
    let limits = Limits { pixels: 1 << 20, ..Limits::default() };
    let Ok(image) = dicom::decode("fuzz", bytes, limits) else { return };
    assert_eq!(image.values.len(), image.shape.iter().product::<usize>());
    let (lower, upper) = (image.bounds.0 as f32, image.bounds.1 as f32);
    assert!(image.values.iter().all(|value| (lower..=upper).contains(value)), "{lower} to {upper}");
}
