//! Attributes by their group and element, named as the standard names them (PS3.6).

/// Group and element.
pub(super) type Tag = (u16, u16);

pub(super) const IMAGE_TYPE: Tag = (0x0008, 0x0008);
pub(super) const SOP_CLASS: Tag = (0x0008, 0x0016);
pub(super) const SOP_INSTANCE: Tag = (0x0008, 0x0018);
pub(super) const MODALITY: Tag = (0x0008, 0x0060);
pub(super) const CONVERSION_TYPE: Tag = (0x0008, 0x0064);
pub(super) const SERIES_DESCRIPTION: Tag = (0x0008, 0x103e);
pub(super) const PATIENT_ID: Tag = (0x0010, 0x0020);
pub(super) const SLICE_THICKNESS: Tag = (0x0018, 0x0050);
pub(super) const STUDY_INSTANCE: Tag = (0x0020, 0x000d);
pub(super) const SERIES_INSTANCE: Tag = (0x0020, 0x000e);
pub(super) const INSTANCE_NUMBER: Tag = (0x0020, 0x0013);
pub(super) const SAMPLES_PER_PIXEL: Tag = (0x0028, 0x0002);
pub(super) const PHOTOMETRIC: Tag = (0x0028, 0x0004);
pub(super) const PLANAR: Tag = (0x0028, 0x0006);
pub(super) const FRAMES: Tag = (0x0028, 0x0008);
pub(super) const ROWS: Tag = (0x0028, 0x0010);
pub(super) const COLUMNS: Tag = (0x0028, 0x0011);
pub(super) const PIXEL_SPACING: Tag = (0x0028, 0x0030);
pub(super) const BITS_ALLOCATED: Tag = (0x0028, 0x0100);
pub(super) const BITS_STORED: Tag = (0x0028, 0x0101);
pub(super) const HIGH_BIT: Tag = (0x0028, 0x0102);
pub(super) const PIXEL_REPRESENTATION: Tag = (0x0028, 0x0103);
pub(super) const WINDOW_CENTER: Tag = (0x0028, 0x1050);
pub(super) const WINDOW_WIDTH: Tag = (0x0028, 0x1051);
pub(super) const RESCALE_INTERCEPT: Tag = (0x0028, 0x1052);
pub(super) const RESCALE_SLOPE: Tag = (0x0028, 0x1053);
pub(super) const RESCALE_TYPE: Tag = (0x0028, 0x1054);
pub(super) const PIXEL_DATA: Tag = (0x7fe0, 0x0010);

/// Attributes that an image must have and that may be empty: dates, times, people, places.
pub(super) const REQUIRED_BUT_EMPTY: [(Tag, [u8; 2]); 10] = [
    ((0x0008, 0x0020), *b"DA"),
    ((0x0008, 0x0030), *b"TM"),
    ((0x0008, 0x0050), *b"SH"),
    ((0x0008, 0x0070), *b"LO"),
    ((0x0008, 0x0090), *b"PN"),
    ((0x0010, 0x0010), *b"PN"),
    ((0x0010, 0x0030), *b"DA"),
    ((0x0010, 0x0040), *b"CS"),
    ((0x0020, 0x0010), *b"SH"),
    ((0x0020, 0x0011), *b"IS"),
];
