//! Attributes by their group and element, named as the standard names them (PS3.6).

/// Group and element.
pub(super) type Tag = (u16, u16);

pub(super) const MEDIA_STORAGE_CLASS: Tag = (0x0002, 0x0002);
pub(super) const TRANSFER_SYNTAX: Tag = (0x0002, 0x0010);
pub(super) const IMAGE_TYPE: Tag = (0x0008, 0x0008);
pub(super) const SOP_CLASS: Tag = (0x0008, 0x0016);
pub(super) const SOP_INSTANCE: Tag = (0x0008, 0x0018);
pub(super) const MODALITY: Tag = (0x0008, 0x0060);
pub(super) const CONVERSION_TYPE: Tag = (0x0008, 0x0064);
pub(super) const SERIES_DESCRIPTION: Tag = (0x0008, 0x103e);
pub(super) const DERIVATION: Tag = (0x0008, 0x2111);
pub(super) const PATIENT_NAME: Tag = (0x0010, 0x0010);
pub(super) const PATIENT_ID: Tag = (0x0010, 0x0020);
pub(super) const IDENTITY_REMOVED: Tag = (0x0012, 0x0062);
pub(super) const REMOVAL_METHOD: Tag = (0x0012, 0x0063);
pub(super) const SLICE_THICKNESS: Tag = (0x0018, 0x0050);
pub(super) const IMAGER_PIXEL_SPACING: Tag = (0x0018, 0x1164);
pub(super) const STUDY_INSTANCE: Tag = (0x0020, 0x000d);
pub(super) const SERIES_INSTANCE: Tag = (0x0020, 0x000e);
pub(super) const INSTANCE_NUMBER: Tag = (0x0020, 0x0013);
pub(super) const IMAGE_POSITION: Tag = (0x0020, 0x0032);
pub(super) const COMMENTS: Tag = (0x0020, 0x4000);
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
pub(super) const BURNED_IN: Tag = (0x0028, 0x0301);
pub(super) const WINDOW_CENTER: Tag = (0x0028, 0x1050);
pub(super) const WINDOW_WIDTH: Tag = (0x0028, 0x1051);
pub(super) const RESCALE_INTERCEPT: Tag = (0x0028, 0x1052);
pub(super) const RESCALE_SLOPE: Tag = (0x0028, 0x1053);
pub(super) const RESCALE_TYPE: Tag = (0x0028, 0x1054);
pub(super) const LOSSY: Tag = (0x0028, 0x2110);
pub(super) const MODALITY_LUT_SEQUENCE: Tag = (0x0028, 0x3000);
pub(super) const LUT_DESCRIPTOR: Tag = (0x0028, 0x3002);
pub(super) const LUT_DATA: Tag = (0x0028, 0x3006);
pub(super) const PIXEL_MEASURES: Tag = (0x0028, 0x9110);
pub(super) const PIXEL_VALUE_TRANSFORMATION: Tag = (0x0028, 0x9145);
pub(super) const UNITS: Tag = (0x0054, 0x1001);
pub(super) const DOSE_SCALING: Tag = (0x3004, 0x000e);
pub(super) const SHARED_GROUPS: Tag = (0x5200, 0x9229);
pub(super) const PER_FRAME_GROUPS: Tag = (0x5200, 0x9230);
pub(super) const FLOAT_PIXELS: Tag = (0x7fe0, 0x0008);
pub(super) const DOUBLE_PIXELS: Tag = (0x7fe0, 0x0009);
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

/// Descriptors and data of the palettes: red, green, blue.
pub(super) const PALETTES: [(Tag, Tag); 3] =
    [((0x0028, 0x1101), (0x0028, 0x1201)), ((0x0028, 0x1102), (0x0028, 0x1202)), ((0x0028, 0x1103), (0x0028, 0x1203))];

/// Attributes of geometry and exposure that a derived image keeps, where they hold nothing but numbers and codes.
pub(super) const KEPT: [(Tag, [u8; 2]); 16] = [
    (SLICE_THICKNESS, *b"DS"),
    ((0x0018, 0x0060), *b"DS"),
    ((0x0018, 0x0088), *b"DS"),
    (IMAGER_PIXEL_SPACING, *b"DS"),
    ((0x0018, 0x5100), *b"CS"),
    ((0x0018, 0x5101), *b"CS"),
    (INSTANCE_NUMBER, *b"IS"),
    (IMAGE_POSITION, *b"DS"),
    ((0x0020, 0x0037), *b"DS"),
    ((0x0020, 0x1041), *b"DS"),
    (PIXEL_SPACING, *b"DS"),
    (WINDOW_CENTER, *b"DS"),
    (WINDOW_WIDTH, *b"DS"),
    (RESCALE_INTERCEPT, *b"DS"),
    (RESCALE_SLOPE, *b"DS"),
    (RESCALE_TYPE, *b"LO"),
];
