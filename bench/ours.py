"""nocebo as the scripts of this folder run it: the release build, or the program that NOCEBO names."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx2torch
import torch

# One thread: on a busy machine several wait for one another longer than they compute.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = os.environ.get("NOCEBO", ROOT / "target/release/nocebo")
DATA = ROOT.parent / "shared/data"
# Data set: epochs and batch size that a small network needs, share of the samples (64 × 64 pixels cost five times 28 × 28).
NETWORKS = {"pneumoniamnist": (4, 64, 1.0), "breastmnist": (12, 64, 1.0), "mednist-64": (10, 16, 0.5)}


def nocebo(*arguments):
    """Standard output of a run."""
    command = [PROGRAM, *map(str, arguments), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def mednist(path):
    """The JPEG folders as one archive: of every six pictures four to train with, one to validate, one to test."""
    from PIL import Image

    parts = {"train": ([], []), "val": ([], []), "test": ([], [])}
    for label, folder in enumerate(sorted(entry for entry in (DATA / "mednist-64").iterdir() if entry.is_dir())):
        for place, file in enumerate(sorted(folder.iterdir())):
            images, labels = parts["test" if place % 6 == 0 else "val" if place % 6 == 3 else "train"]
            images.append(np.asarray(Image.open(file).convert("L")))
            labels.append([label])
    arrays = {f"{part}_{what}": np.array(values, np.uint8)
              for part, both in parts.items() for what, values in zip(("images", "labels"), both)}
    np.savez_compressed(path, **arrays)


def network(name, folder):
    """A small network trained on one of NETWORKS, and its data; both are kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    data, model = folder / f"{name}.npz", folder / f"{name}.onnx"
    if not data.exists():
        if name == "mednist-64":
            mednist(data)
        else:
            data.write_bytes((DATA / name / f"{name}.npz").read_bytes())
    if not model.exists():
        epochs, batch, _ = NETWORKS[name]
        said = nocebo("train", "--data", data, "--epochs", epochs, "--batch-size", batch, "--seed", 1, "--out", model)
        print(f"{name}: {said.splitlines()[1]}")
    return model, data


class Scaled(torch.nn.Module):
    """The network of an ONNX file for inputs in [0, 1] instead of grey levels."""

    def __init__(self, path):
        super().__init__()
        self.network = onnx2torch.convert(onnx.load(path)).eval().requires_grad_(False)
        self.eval()

    def forward(self, x):
        return self.network(x * 255)


def samples(model, data, count, folder):
    """An archive whose test part is `count` samples that the network decides right, and these as tensors in [0, 1]."""
    arrays = dict(np.load(data))
    images, labels = arrays["test_images"], arrays["test_labels"].reshape(-1).astype(int)
    x = torch.from_numpy(images.astype(np.float32) / 255).unsqueeze(1)
    with torch.no_grad():
        right = (torch.cat([Scaled(model)(part) for part in x.split(256)]).argmax(1).numpy() == labels)
    each = -(-count // len(set(labels)))
    chosen = sorted(row for label in set(labels) for row in np.flatnonzero(right & (labels == label))[:each])[:count]
    arrays["test_images"], arrays["test_labels"] = images[chosen], arrays["test_labels"][chosen]
    path = folder / f"{Path(data).stem}-{count}.npz"
    np.savez_compressed(path, **arrays)
    return path, x[chosen], torch.from_numpy(labels[chosen])


def subset_of(path, rows, folder):
    """An archive whose test part is some samples of that of another."""
    arrays = dict(np.load(path))
    part = folder / Path(path).name
    np.savez(part, **{key: values[rows] if key.startswith("test_") else values for key, values in arrays.items()})
    return part


def spelled(name, settings):
    """An attack as it is typed: `pgd(steps=20)`."""
    def flat(prefix, entry):
        if isinstance(entry, dict):
            return [part for key, inner in entry.items() for part in flat(f"{prefix}.{key}" if prefix else key, inner)]
        return [f"{prefix}={json.dumps(entry)}"]

    return f"{name}({','.join(flat('', settings))})" if settings else name


def attack(model, data, name, settings, norm, epsilon="inf"):
    """Success, distance in grey levels, and forward and backward passes of each sample of the test part."""
    with tempfile.TemporaryDirectory() as folder:
        nocebo("attack", "--model", model, "--data", data, "--attack", spelled(name, settings), "--threat",
               f"{norm}:{epsilon}", "--seed", 1, "--out", f"{folder}/out")
        rows = json.loads(Path(f"{folder}/out/attack.json").read_text())["samples"]
    take = lambda field: np.array([row[field] for row in rows])
    return take("success"), take("distance").astype(float), take("queries") + take("gradient_queries")
