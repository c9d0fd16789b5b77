"""Compares DICOM images as nocebo reads them with pydicom and its decoders, value by value, and writes the table.

    cargo build --release -p nocebo-data --example dicom_dump
    target/release/examples/dicom_dump ../shared/data/dicom-pydicom values/ > values.txt
    bench/.venv/bin/python bench/dicom_agreement.py ../shared/data/dicom-pydicom values/ values.txt > crates/data/DICOM.md

pydicom's array goes through its own modality transform and palette; what pydicom does not do is done here the same way: the
slope of the functional groups of enhanced images, and that of a dose grid.
"""

import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_rescale, pixel_array

warnings.simplefilter("ignore")
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


def group_slope(dataset):
    shared = dataset.get("SharedFunctionalGroupsSequence", [])
    frames = dataset.get("PerFrameFunctionalGroupsSequence", [])
    for groups in [*shared, *frames]:
        for item in groups.get("PixelValueTransformationSequence", []):
            return float(item.RescaleSlope), float(item.RescaleIntercept)
    return None


def theirs(path, plugin):
    """[channels, frames, rows, columns] as 32-bit floats."""
    dataset = pydicom.dcmread(path, force=True)
    values = pixel_array(dataset, decoding_plugin=plugin)
    photometric = dataset.get("PhotometricInterpretation", "")
    channels = dataset.get("SamplesPerPixel", 1)
    if photometric == "PALETTE COLOR":
        values, channels = apply_color_lut(values, dataset), 3
    elif channels == 1 and "ModalityLUTSequence" in dataset:
        values = apply_rescale(values, dataset)
    elif channels == 1 and "DoseGridScaling" in dataset:
        values = values * float(dataset.DoseGridScaling)
    elif channels == 1 and "RescaleSlope" in dataset:
        values = values.astype(np.float64) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    elif channels == 1 and (scale := group_slope(dataset)):
        values = values.astype(np.float64) * scale[0] + scale[1]
    shape = (-1, dataset.Rows, dataset.Columns, channels)
    return np.moveaxis(values.reshape(shape), -1, 0).astype(np.float32)


def syntax(path):
    dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    meta = getattr(dataset, "file_meta", {})
    uid = meta.get("TransferSyntaxUID") if meta else None
    return uid.name if uid else "none"


# pydicom's own choice of decoder, then those that it can be told to use.
DECODERS = {"pydicom": "", "pylibjpeg": "pylibjpeg", "pillow": "pillow"}

# Why files differ, where that is known.
KNOWN = {
    "GDCMJ2K_TextGBR.dcm": "the stream lies in a JP2 file, which DICOM does not allow; its own colours are not looked at here",
    "JPGExtended.dcm": "lossy: ITU-T T.81 leaves the rounding of the inverse transform open",
    "SC_rgb_jpeg.dcm": "says explicit and is implicit",
}

folder, values_folder, listing = map(Path, sys.argv[1:])
rows, counts, slowest = [], {}, 0
for number, line in enumerate(listing.read_text().splitlines(), 1):
    name, took, verdict, *rest = line.split("\t")
    path = folder / name
    if path.suffix in {".txt", ".md", ".json", ".dump", ".icc", ".gz"} or path.name == "SHA256SUMS":
        continue
    slowest = max(slowest, int(took))
    reference, failure = {}, ""
    for label, plugin in DECODERS.items():
        try:
            reference[label] = theirs(path, plugin)
        except Exception as error:  # whatever pydicom says of a file
            failure = failure or type(error).__name__
    decodable = "pydicom" in reference
    if verdict == "refused":
        kind, reason = ("refused, decodable" if decodable else "refused by both"), rest[0].split("`: ", 1)[-1]
    elif not decodable:
        kind, reason = "read here only", f"pydicom: {failure}"
    else:
        shape = [int(side) for side in rest[0].strip("[]").split(",")]
        ours = np.fromfile(values_folder / f"{number}.f32", dtype="<f4").reshape(shape)
        best = None
        for label, array in reference.items():
            if array.shape != ours.shape:
                continue
            difference = np.abs(ours.astype(np.float64) - array.astype(np.float64))
            if best is None or difference.max() < best[0]:
                best = (difference.max(), (difference > 0).mean(), label)
        if best is None:
            kind, reason = "different", f"shape {ours.shape}, pydicom {reference['pydicom'].shape}"
        elif best[0] == 0:
            kind, reason = "equal", "" if best[2] == "pydicom" else f"to {best[2]}"
        else:
            kind, reason = "different", f"by {best[0]:g} at most, at {best[1]:.2%} of the values, from {best[2]}"
    counts[kind] = counts.get(kind, 0) + 1
    if path.name in KNOWN:
        reason += f" ({KNOWN[path.name]})"
    if kind != "equal" or reason:
        rows.append((kind, name, syntax(path), reason))

packages = ["pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pillow", "numpy"]
print("# DICOM images: agreement with pydicom\n")
print("Written by `bench/dicom_agreement.py`. Every value is compared after the modality transform, as a 32-bit float.\n")
print("Compared with: " + ", ".join(f"{name} {version(name)}" for name in packages) + ".\n")
print("| result | files |\n|---|---|")
for kind, count in sorted(counts.items()):
    print(f"| {kind} | {count} |")
print("\nFiles that are equal to pydicom's own choice of decoder are not listed; those refused by both hold no image or are broken.\n")
print(f"{slowest} ms is what the slowest file took, reading or refusing it, with the build beside which this was written.\n", file=sys.stderr)
print("| result | file | transfer syntax | what |\n|---|---|---|---|")
for kind, name, uid, reason in sorted(rows):
    print(f"| {kind} | `{name}` | {uid} | {reason.replace('|', '/')} |")
