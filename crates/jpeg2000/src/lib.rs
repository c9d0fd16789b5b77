//! Pictures as JPEG 2000 codestreams, with loss at a wanted ratio: `OpenJPEG`'s encoder, called through its C interface.
//!
//! The codestream is of one tile and one layer, by the irreversible 9/7 wavelet; the channels of RGB are decorrelated first.
//!
//! Source: ISO/IEC 15444-1; `OpenJPEG` 2.5.

#![expect(unsafe_code, reason = "a library in C")]

use std::ffi::c_void;
use std::slice;

use openjpeg_sys as opj;

/// Greatest number of bits of a value.
pub const MOST_BITS: u8 = 16;
/// Greatest width and height.
pub const MOST_SIDE: usize = u16::MAX as usize;

/// Encodes planes of `width` times `height` values of so many bits, one plane or those of red, green and blue, into at most about
/// `1 / ratio` of their size: few bytes stay for a small picture, since at least 30 are kept beside the header.
///
/// # Errors
///
/// When there are other numbers of planes or values, sides are 0 or above [`MOST_SIDE`], `bits` is 0 or above [`MOST_BITS`], a value
/// needs more bits, `ratio` is not above 1, and when the encoder fails.
pub fn encode(planes: &[Vec<i32>], [width, height]: [usize; 2], bits: u8, ratio: f32) -> Result<Vec<u8>, &'static str> {
    if !matches!(planes.len(), 1 | 3) || planes.iter().any(|plane| plane.len() != width * height) {
        return Err("one or three planes of width times height values are encoded");
    }
    if !(1..=MOST_SIDE).contains(&width) || !(1..=MOST_SIDE).contains(&height) {
        return Err("sides are from 1 to 65535");
    }
    if !(1..=MOST_BITS).contains(&bits) || planes.iter().flatten().any(|value| !(0..1 << bits).contains(value)) {
        return Err("values are whole, from 0, of at most 16 bits");
    }
    if ratio.is_nan() || ratio <= 1.0 {
        return Err("the ratio is above 1");
    }
    let mut stored = Stored::default();
    let image = Image::new(planes, [width, height], bits)?;
    // SAFETY: null or a codec, which `Codec` destroys.
    let codec = Codec(unsafe { opj::opj_create_compress(opj::CODEC_FORMAT::OPJ_CODEC_J2K) });
    // SAFETY: null or a stream, which `Stream` destroys before `stored`, which it writes to, goes.
    let stream = Stream(unsafe { opj::opj_stream_create(1 << 16, 0) });
    if codec.0.is_null() || stream.0.is_null() {
        return Err("no memory for the encoder");
    }
    // SAFETY: a structure of numbers and pointers, for which zeros are values; the library then sets all of it.
    let mut parameters: opj::opj_cparameters_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe { opj::opj_set_default_encoder_parameters(&raw mut parameters) };
    parameters.tcp_numlayers = 1;
    parameters.tcp_rates[0] = ratio;
    parameters.cp_disto_alloc = 1;
    parameters.irreversible = 1;
    // Halvings that leave at least one value of the shorter side.
    parameters.numresolution = 6.min(1 + width.min(height).ilog2() as i32);
    parameters.tcp_mct = i8::from(planes.len() == 3) as _;
    // SAFETY: all four are alive until the end of this function, and only this thread has them.
    let done = unsafe {
        opj::opj_stream_set_user_data(stream.0, (&raw mut stored).cast(), None);
        opj::opj_stream_set_write_function(stream.0, Some(write));
        opj::opj_stream_set_skip_function(stream.0, Some(skip));
        opj::opj_stream_set_seek_function(stream.0, Some(seek));
        opj::opj_setup_encoder(codec.0, &raw mut parameters, image.0) != 0
            && opj::opj_start_compress(codec.0, image.0, stream.0) != 0
            && opj::opj_encode(codec.0, stream.0) != 0
            && opj::opj_end_compress(codec.0, stream.0) != 0
    };
    drop((stream, codec, image));
    if done { Ok(stored.bytes) } else { Err("the encoder failed") }
}

struct Image(*mut opj::opj_image_t);

impl Image {
    fn new(planes: &[Vec<i32>], [width, height]: [usize; 2], bits: u8) -> Result<Self, &'static str> {
        let (w, h) = (width as u32, height as u32);
        let component = opj::opj_image_cmptparm_t {
            dx: 1,
            dy: 1,
            w,
            h,
            x0: 0,
            y0: 0,
            prec: bits.into(),
            bpp: bits.into(),
            sgnd: 0,
        };
        let mut components = vec![component; planes.len()];
        let space = match planes.len() {
            1 => opj::COLOR_SPACE::OPJ_CLRSPC_GRAY,
            _ => opj::COLOR_SPACE::OPJ_CLRSPC_SRGB,
        };
        // SAFETY: as many components as the first argument says.
        let image = Self(unsafe { opj::opj_image_create(components.len() as u32, components.as_mut_ptr(), space) });
        if image.0.is_null() {
            return Err("no memory for the picture");
        }
        // SAFETY: the library has made an image with these components, each of `w` times `h` values.
        unsafe {
            (*image.0).x1 = w;
            (*image.0).y1 = h;
            let components = slice::from_raw_parts((*image.0).comps, planes.len());
            for (component, plane) in components.iter().zip(planes) {
                slice::from_raw_parts_mut(component.data, width * height).copy_from_slice(plane);
            }
        }
        Ok(image)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: made by the library, or null, which it lets be.
        unsafe { opj::opj_image_destroy(self.0) };
    }
}

struct Codec(*mut opj::opj_codec_t);

impl Drop for Codec {
    fn drop(&mut self) {
        // SAFETY: made by the library, or null, which it lets be.
        unsafe { opj::opj_destroy_codec(self.0) };
    }
}

struct Stream(*mut opj::opj_stream_t);

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made by the library, or null, which it lets be.
        unsafe { opj::opj_stream_destroy(self.0) };
    }
}

/// What the encoder has written, and where it goes on.
#[derive(Default)]
struct Stored {
    bytes: Vec<u8>,
    at: usize,
}

/// Safety: `from` has so many bytes, and `stored` is the stream's own.
unsafe extern "C" fn write(from: *mut c_void, count: usize, stored: *mut c_void) -> usize {
    // SAFETY: as above.
    let (stored, from) = unsafe { (&mut *stored.cast::<Stored>(), slice::from_raw_parts(from.cast::<u8>(), count)) };
    let end = stored.at + count;
    if stored.bytes.len() < end {
        stored.bytes.resize(end, 0);
    }
    stored.bytes[stored.at..end].copy_from_slice(from);
    stored.at = end;
    count
}

/// Safety: `stored` is the stream's own.
unsafe extern "C" fn skip(count: i64, stored: *mut c_void) -> i64 {
    // SAFETY: as above.
    let stored = unsafe { &mut *stored.cast::<Stored>() };
    match usize::try_from(count).ok().and_then(|count| stored.at.checked_add(count)) {
        Some(at) => stored.at = at,
        None => return -1,
    }
    count
}

/// Safety: `stored` is the stream's own.
unsafe extern "C" fn seek(place: i64, stored: *mut c_void) -> opj::OPJ_BOOL {
    // SAFETY: as above.
    let stored = unsafe { &mut *stored.cast::<Stored>() };
    let place = usize::try_from(place);
    if let Ok(place) = place {
        stored.at = place;
    }
    place.is_ok().into()
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    /// A slope with a disc on it, of `bits` bits, and noise.
    fn picture(width: usize, height: usize, bits: u8, channel: usize) -> Vec<i32> {
        let most = (1 << bits) - 1;
        let value = |at: usize| {
            let (x, y) = ((at % width) as i32, (at / width) as i32);
            let disc = i32::from((x - 20).pow(2) + (y - 14).pow(2) < 100) * most / 4;
            let noise = (at * 7919 + channel * 31) as i32 % (1 + most / 32);
            (most / 4 + most / 3 * x / width as i32 + disc + noise).min(most)
        };
        (0..width * height).map(value).collect()
    }

    fn error(width: usize, height: usize, bits: u8, channels: usize, ratio: f32) -> (f64, usize) {
        let planes: Vec<Vec<i32>> = (0..channels).map(|channel| picture(width, height, bits, channel)).collect();
        let bytes = encode(&planes, [width, height], bits, ratio).expect("is encoded");
        let read = jpeg2k::Image::from_bytes(&bytes).expect("is read");
        assert_eq!((read.width() as usize, read.height() as usize), (width, height));
        let mut squares = 0.0;
        for (component, plane) in read.components().iter().zip(&planes) {
            assert_eq!(component.precision(), u32::from(bits));
            squares += component.data().iter().zip(plane).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        }
        ((squares / (planes.len() * width * height) as f64).sqrt() / f64::from((1 << bits) - 1), bytes.len())
    }

    #[test]
    fn pictures_come_back_the_worse_the_higher_the_ratio() {
        for (bits, channels) in [(8, 1), (8, 3), (12, 1), (16, 1)] {
            let (fine, many) = error(64, 48, bits, channels, 3.0);
            let (coarse, few) = error(64, 48, bits, channels, 20.0);
            assert!(fine < 0.02 && fine < coarse && coarse < 0.1, "{bits} bits, {channels} channels: {fine} {coarse}");
            let raw = 64 * 48 * channels * usize::from(bits) / 8;
            assert!(many <= raw / 3 + 100 && few <= raw / 20 + 100 && few < many, "{many} {few} of {raw}");
        }
    }

    #[test]
    fn the_smallest_pictures_are_pictures() {
        for (width, height) in [(1, 1), (1, 9), (5, 2), (28, 28), (33, 17)] {
            let (error, _) = error(width, height, 8, 1, 10.0);
            assert!(error < 0.3, "{width} x {height}: {error}");
        }
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let plane = vec![0; 6];
        let encode = |planes: &[Vec<i32>], sides, bits, ratio| encode(planes, sides, bits, ratio).map(drop);
        assert_eq!(encode(from_ref(&plane), [3, 2], 8, 10.0), Ok(()));
        assert!(encode(&[plane.clone(), plane.clone()], [3, 2], 8, 10.0).is_err(), "two channels");
        assert!(encode(from_ref(&plane), [2, 2], 8, 10.0).is_err(), "other sides");
        assert!(encode(&[vec![]], [0, 2], 8, 10.0).is_err(), "no side");
        assert!(encode(&[vec![256; 6]], [3, 2], 8, 10.0).is_err() && encode(&[vec![-1; 6]], [3, 2], 8, 10.0).is_err());
        assert!(
            encode(from_ref(&plane), [3, 2], 17, 10.0).is_err() && encode(from_ref(&plane), [3, 2], 0, 10.0).is_err()
        );
        assert!(
            encode(from_ref(&plane), [3, 2], 8, 1.0).is_err() && encode(from_ref(&plane), [3, 2], 8, f32::NAN).is_err()
        );
    }
}
