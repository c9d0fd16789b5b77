"""The brainchop ONNX U-Net (2-D, channels last, two inputs) and its consensus layer (3-D) on a real T1 volume: `nocebo run`
against ONNX Runtime.

    bench/setup.sh && cargo build --release
    bench/.venv/bin/python bench/brainchop_unet.py [--slices 256] [--program target/release/nocebo]

Reads ../shared/data/brainchop-models beside the checkout. By default 16 sagittal slices, evenly spaced; 256 are all. The consensus
layer takes the image and the maps of three U-Nets, of which one is at hand, so it gets that one's three times. Exit code 1
when an output differs by more than 1e-3.
"""

import argparse
import gzip
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared/data/brainchop-models"
LIMIT, PART = 1e-3, 16


def volume():
    """The volume in RAS order, divided by its 95th percentile, as the model's makers prepare it."""
    raw = gzip.decompress((DATA / "t1_crop.nii.gz").read_bytes())
    shape = struct.unpack_from("<8h", raw, 40)[1:4]
    datatype, offset = struct.unpack_from("<h", raw, 70)[0], int(struct.unpack_from("<f", raw, 108)[0])
    if datatype != 2:
        sys.exit(f"expected uint8 voxels, got type {datatype}")
    voxels = np.frombuffer(raw, np.uint8, np.prod(shape), offset).reshape(shape, order="F").astype(np.float32)
    affine = np.array(struct.unpack_from("<12f", raw, 280)).reshape(3, 4)[:, :3]
    order = np.abs(affine).argmax(axis=1)
    voxels = voxels.transpose(order)
    for axis, source in enumerate(order):
        if affine[axis, source] < 0:
            voxels = np.flip(voxels, axis)
    return np.ascontiguousarray(voxels / np.percentile(voxels, 95))


def compare(name, program, inputs, folder):
    """Runs on parts of the batch, as many slices at a time as memory takes."""
    path = DATA / "multiaxial" / name
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [model_input.name for model_input in session.get_inputs()]
    ours, difference, same, seconds = [], 0.0, [], 0.0
    for first in range(0, len(inputs[0]), PART):
        part = [values[first : first + PART] for values in inputs]
        theirs = session.run(None, dict(zip(names, part, strict=True)))[0]
        out = folder / f"{path.stem}-{first}"
        arguments = [program, "run", path, "--out", out]
        for number, values in enumerate(part):
            np.save(folder / f"{number}.npy", values)
            arguments += ["--input", folder / f"{number}.npy"]
        start = time.perf_counter()
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        seconds += time.perf_counter() - start
        ours.append(np.load(out / f"{session.get_outputs()[0].name}.npy"))
        difference = max(difference, float(np.abs(ours[-1] - theirs).max()))
        same.append((ours[-1].argmax(-1) == theirs.argmax(-1)).mean())
    ours = np.concatenate(ours)
    print(f"{name}: output {ours.shape}, greatest difference {difference:.1e}, same class at {np.mean(same):.6f} of the places, "
          f"{seconds:.1f} s", flush=True)
    return ours, difference


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/nocebo")
    arguments = parser.parse_args()
    voxels = volume()
    places = np.linspace(0, 255, arguments.slices + 2)[1:-1].round().astype(int) if arguments.slices < 256 else np.arange(256)
    image = voxels[places][..., None]
    grid = np.stack(np.meshgrid(places, np.arange(256), np.arange(256), indexing="ij"), axis=-1)
    coordinates = ((grid - 128) / 256).astype(np.float32)
    print(f"ONNX Runtime {onnxruntime.__version__}, {len(places)} sagittal slices")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        maps, first = compare("sagittal_model.onnx", arguments.program, [image, coordinates], folder)
        stack = np.concatenate([image, maps, maps, maps], axis=-1)[None]
        _, second = compare("consensus_layer.onnx", arguments.program, [stack.astype(np.float32)], folder)
    sys.exit(int(max(first, second) > LIMIT))


if __name__ == "__main__":
    main()
