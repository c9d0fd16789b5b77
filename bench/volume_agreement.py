"""Compares volumes as nocebo reads and writes them with nibabel (NIfTI), pynrrd (NRRD) and SimpleITK (MetaImage): every value.

    bench/.venv/bin/python bench/volume_agreement.py make made
    cargo run --release -p nocebo-data --example volume_dump -- copies ../shared/data/nifti-nibabel ../shared/data/msd-hippocampus made > dump.txt
    bench/.venv/bin/python bench/volume_agreement.py compare dump.txt

`make` writes NRRD and MetaImage files of every type, packing and byte order with the other packages. The example writes the values
of each file that it reads, and the volume again; `compare` reads the source and that copy with the other package and prints what
differs by more than 1e-6 of the value (or of 1, where that is more), and what either side refuses.
"""

import sys
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import SimpleITK

TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"]


def make(folder):
    folder.mkdir()
    generator = np.random.default_rng(1)
    for kind in TYPES:
        for shape in [(4, 5), (3, 4, 5), (2, 3, 4, 5)]:
            values = (generator.normal(size=shape) * 50 + 60).clip(0, 120).astype(kind)
            name = f"{kind}-{len(shape)}"
            header = {"spacings": [0.5] * len(shape)}
            for encoding in ["raw", "gzip"]:
                nrrd.write(str(folder / f"{name}-{encoding}.nrrd"), values, header | {"encoding": encoding}, index_order="C")
            big = values.astype(values.dtype.newbyteorder(">"))
            nrrd.write(str(folder / f"{name}-big.nrrd"), big, header | {"encoding": "raw", "endian": "big"}, index_order="C")
            nrrd.write(str(folder / f"{name}-beside.nhdr"), values, header | {"encoding": "raw"}, index_order="C")
            image = SimpleITK.GetImageFromArray(values, isVector=False)
            image.SetSpacing([0.5] * len(shape))
            for ending, compressed in [("raw.mha", False), ("zlib.mha", True), ("beside.mhd", False)]:
                SimpleITK.WriteImage(image, str(folder / f"{name}-{ending}"), useCompression=compressed)


def peer(path):
    """Values with the slowest axis first, as they lie in the file, and distances with the fastest axis first."""
    name = str(path).lower()
    if name.endswith((".nii", ".nii.gz", ".hdr")):
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Pair):
            raise ValueError("not a NIfTI image")
        return np.asarray(image.dataobj, dtype=np.float64).T, image.affine.ravel()
    if name.endswith((".nrrd", ".nhdr")):
        values, header = nrrd.read(str(path), index_order="C")
        return values.astype(np.float64), np.asarray(header.get("spacings", []))
    image = SimpleITK.ReadImage(str(path))
    return SimpleITK.GetArrayFromImage(image).astype(np.float64), np.asarray(image.GetSpacing())


def differs(ours, theirs):
    return ours.size != theirs.size or np.any(np.abs(ours - theirs.ravel()) > 1e-6 * np.maximum(1, np.abs(theirs.ravel())))


def compare(dump):
    counts = {}
    for line in dump.read_text().splitlines():
        path, *rest = line.split("\t")
        path = Path(path)
        kind = "NIfTI" if path.name.lower().endswith((".nii", ".nii.gz", ".hdr")) else path.suffix[1:]
        try:
            theirs, place = peer(path)
        except Exception as error:  # whatever the other package says of a file
            theirs = type(error).__name__
        if rest[0].startswith("refused"):
            verdict = "refused by both" if isinstance(theirs, str) else "refused by nocebo"
            print(f"{path}: {verdict}: {rest[0]}; {theirs if isinstance(theirs, str) else 'the other reads it'}")
        elif isinstance(theirs, str):
            verdict = "refused by the other"
            print(f"{path}: {verdict}: {theirs}")
        else:
            copy, copied_place = peer(Path(rest[1]))
            values = np.fromfile(rest[0], "<f4").astype(np.float64)
            faults = [
                what
                for what, wrong in [
                    ("values", differs(values, theirs)),
                    ("copy", copy.shape != theirs.shape or differs(copy.ravel(), theirs)),
                    ("place of the copy", not np.allclose(copied_place, place, atol=1e-4)),
                ]
                if wrong
            ]
            verdict = "DIFFERENT" if faults else "equal"
            if faults:
                print(f"{path}: DIFFERENT: {', '.join(faults)}")
        counts.setdefault(kind, {}).setdefault(verdict, 0)
        counts[kind][verdict] += 1
    print(f"nibabel {nibabel.__version__}, pynrrd {nrrd.__version__}, SimpleITK {SimpleITK.__version__}")
    for kind, verdicts in sorted(counts.items()):
        print(f"{kind}: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))
    return any("DIFFERENT" in verdicts for verdicts in counts.values())


if __name__ == "__main__":
    command, path = sys.argv[1:]
    sys.exit(make(Path(path)) if command == "make" else compare(Path(path)))
