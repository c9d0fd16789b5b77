"""Attacks a folder of CT images made from a real one, and lets pydicom judge the files that come out.

    bench/.venv/bin/python bench/dicom_attack.py target/release/nocebo ../shared/data/dicom-pydicom/test_files/CT_small.dcm

The images are the given one with noise, half of them with a disc of 60 HU; patients have names. pydicom opens every copy; the
change is a whole number of stored steps of at most 10 HU; no copy names a patient or shares an identifier with its source; and
the program, run again on the copies as they are stored, finds as many of them wrong as it said.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import generate_uid

nocebo, source = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
folder = Path(tempfile.mkdtemp())
generator = np.random.default_rng(0)
(folder / "ct").mkdir()
lines = ["file,label"]
for at in range(40):
    image = pydicom.dcmread(source)
    y, x = np.mgrid[: image.Rows, : image.Columns]
    disc = (y - image.Rows // 2) ** 2 + (x - image.Columns // 2) ** 2 < (image.Rows // 5) ** 2
    values = image.pixel_array + generator.integers(-8, 9, disc.shape) + 60 * disc * (at % 2)
    image.PixelData = values.astype(image.pixel_array.dtype).tobytes()
    image.PatientID, image.PatientName = f"CANARY-{at // 2}", "CANARY^JANE"
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.save_as(folder / "ct" / f"{at}.dcm")
    lines.append(f"{at}.dcm,{['clear', 'disc'][at % 2]}")
(folder / "ct/labels.csv").write_text("\n".join(lines) + "\n")


def run(*arguments):
    return subprocess.run([nocebo, *arguments], cwd=folder, check=True, capture_output=True, text=True)


run("train", "--data", "ct", "--architecture", "mlp", "--epochs", "20", "--batch-size", "8", "--seed", "1", "--out", "m.onnx")
attack = ("attack", "--model", "m.onnx", "--split", "train", "--seed", "1", "--quiet")
said = run(*attack, "--data", "ct", "--attack", "pgd(steps=10)", "--threat", "linf:10HU", "--out", "adversarial").stdout
samples = json.loads((folder / "adversarial/attack.json").read_text())["samples"]
greatest = 0
for sample in samples:
    before = pydicom.dcmread(folder / "ct" / f"{sample['sample']}.dcm")
    path = folder / "adversarial" / f"{sample['sample']:06}.dcm"
    after = pydicom.dcmread(path)
    steps = after.pixel_array.astype(int) - before.pixel_array.astype(int)
    assert (after.RescaleSlope, after.RescaleIntercept) == (before.RescaleSlope, before.RescaleIntercept)
    change = np.abs(steps * float(after.RescaleSlope)).max()
    # A sample that was wrong already stays as it is.
    assert change <= 10 and (change > 0 or sample["wrong_before"]), change
    greatest = max(greatest, change)
    assert b"CANARY" not in path.read_bytes()
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        assert after[name].value != before[name].value, name
    assert after.ImageType[0] == "DERIVED" and "NOT FOR CLINICAL USE" in after.SeriesDescription
    assert after.ImagePositionPatient == before.ImagePositionPatient and after.PixelSpacing == before.PixelSpacing
fooled = sum(sample["success_after_storage"] for sample in samples)
wrong = sum(sample["wrong_before"] for sample in samples)
table = "file,label,split\n" + "".join(f"{s['sample']:06}.dcm,{['clear', 'disc'][s['sample'] % 2]},train\n" for s in samples)
(folder / "adversarial/labels.csv").write_text(table)
again = run(*attack, "--data", "adversarial", "--attack", "noise", "--threat", "linf:0", "--out", "again").stdout
assert f"{fooled} wrong before the attack" in again, (said, again)
print(f"pydicom {pydicom.__version__}: {len(samples)} copies opened, {greatest:g} HU at most, {wrong} wrong before, {fooled} as stored")
