//! DICOM images.

mod image;
mod tags;
mod write;

pub use write::{Acquisition, NewImage, write_dataset, write_image};
