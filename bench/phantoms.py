"""Trains a network of the zoo on every phantom modality and writes how well it does into docs/phantoms.md.

    cargo build --release -p nocebo-cli
    python bench/phantoms.py FOLDER [MODALITY ...]

Data, networks and results are left in FOLDER: data and results that are there already are used as they are, and rows of the table
without a result there stay. NOCEBO names another program than target/release/nocebo. Every network should reach a test accuracy of 0.85 to 0.98: a finding that nobody misses,
or nobody finds, makes a poor test; and it should take at most two minutes, which are counted in processor seconds: such small
networks hardly use a second core.

Samples to train with (nine of ten) and to choose the epoch (the tenth) have seed 1, those to test with seed 2.
"""

import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = os.environ.get("NOCEBO", ROOT / "target/release/nocebo")
PAGE = ROOT / "docs/phantoms.md"
HEADING = "## How well a small network learns them\n"
TEST = 300
# Samples, pixels a side where they are not as many as by default, and how the network is trained.
RUNS = {
    "chest-xray": (2400, 32, "small-cnn", "--epochs 10 --batch-size 16 --learning-rate 0.002 --flip"),
    "ct-slice": (4000, 48, "small-cnn", "--epochs 10 --batch-size 16 --learning-rate 0.002 --flip"),
    "ct-volume": (1400, None, "small-cnn3d", "--epochs 5 --batch-size 16 --learning-rate 0.002"),
    "brain-mri": (1400, None, "small-cnn", "--epochs 8 --batch-size 16 --learning-rate 0.002"),
    "ultrasound": (1200, None, "small-cnn", "--epochs 6 --batch-size 16 --learning-rate 0.002"),
    "fundus": (1200, None, "small-cnn", "--epochs 8 --batch-size 16 --learning-rate 0.002"),
    "dermoscopy": (1200, None, "small-cnn", "--epochs 6 --batch-size 16 --learning-rate 0.002"),
    "oct": (1200, None, "small-cnn", "--epochs 8 --batch-size 16 --learning-rate 0.002"),
    "mammogram": (2000, None, "small-cnn", "--epochs 8 --batch-size 16 --learning-rate 0.002"),
    "histology": (1000, None, "small-cnn", "--epochs 6 --batch-size 16 --learning-rate 0.002"),
    "ecg": (900, None, "resnet1d", "--epochs 2 --batch-size 16 --learning-rate 0.001"),
    "eeg": (4000, None, "eegnet", "--epochs 10 --batch-size 32 --learning-rate 0.003"),
    "ppg": (900, None, "resnet1d", "--epochs 2 --batch-size 16 --learning-rate 0.001"),
    "ehr": (2000, None, "mlp", "--epochs 10 --batch-size 32 --learning-rate 0.001"),
}


def nocebo(*arguments):
    done = subprocess.run([PROGRAM, *map(str, arguments), "--quiet"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def phantoms(modality, count, size, seed, folder, split):
    """Phantoms in a new folder, with a column that says what each is for."""
    if folder.exists():
        return
    sized = ("--size", size) if size else ()
    nocebo("phantom", modality, "--count", count, *sized, "--seed", seed, "--out", folder)
    table = next(path for path in (folder / "labels.csv", folder / "table.csv") if path.exists())
    head, *lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{head},split", *(f"{line},{split(at)}" for at, line in enumerate(lines))]) + "\n")


def measured(modality, folder):
    count, size, network, training = RUNS[modality]
    learn, test, model = folder / modality, folder / f"{modality}-test", folder / f"{modality}.onnx"
    phantoms(modality, count, size, 1, learn, lambda at: "val" if at % 10 == 9 else "train")
    phantoms(modality, TEST, size, 2, test, lambda at: "test")
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    nocebo("train", "--data", learn, "--architecture", network, *training.split(), "--seed", 1, "--out", model)
    seconds, after = time.time() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    # What an attack says first is how many it found right.
    attacked = folder / f"{modality}-attacked"
    said = nocebo("attack", "--model", model, "--data", test, "--attack", "noise", "--threat", "linf:0.1", "--out", attacked)
    samples, wrong = map(int, re.search(r"(\d+) samples, (\d+) wrong before", said).groups())
    return {
        "samples": count,
        "size": size,
        "network": network,
        "training": training,
        "tested": samples,
        "accuracy": 1 - wrong / samples,
        "seconds": seconds,
        "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def row(modality, result):
    accuracy, tested = result["accuracy"], result["tested"]
    # Wilson's interval.
    z = 1.96
    middle = (accuracy + z * z / 2 / tested) / (1 + z * z / tested)
    half = z * (accuracy * (1 - accuracy) / tested + z * z / 4 / tested**2) ** 0.5 / (1 + z * z / tested)
    return (
        f"| {modality} | {result['samples']} | {result['size'] or 'default'} | `{result['network']}` | `{result['training']}` "
        f"| {tested} | {accuracy:.3f} ({middle - half:.3f} to {middle + half:.3f}) "
        f"| {result['seconds']:.0f} | {result['processor_seconds']:.0f} |"
    )


def main():
    folder, *wanted = sys.argv[1:]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for modality in RUNS:
        kept = folder / f"{modality}.json"
        if not kept.exists() and (not wanted or modality in wanted):
            kept.write_text(json.dumps(measured(modality, folder)))
        if kept.exists():
            results[modality] = json.loads(kept.read_text())
            print(modality, results[modality], flush=True)
    text, _, before = PAGE.read_text().partition(HEADING)
    rows = {line.split("|")[1].strip(): line for line in before.splitlines() if line.startswith("| ")}
    rows.update({modality: row(modality, result) for modality, result in results.items()})
    words = """Written by `bench/phantoms.py` at the default difficulty, and tested on samples of another seed. Seconds are those of
training on two cores that much else used at the same time, processor seconds those of all threads together.

| modality | samples | side | network | training | tested on | accuracy (95 % interval) | seconds | processor seconds |
|---|---|---|---|---|---|---|---|---|
"""
    missing = [name for name in RUNS if name not in rows]
    left = f"\nNot measured yet: {', '.join(missing)}.\n" if missing else ""
    table = "".join(f"{rows[name]}\n" for name in RUNS if name in rows)
    PAGE.write_text(f"{text}{HEADING}\n{words}{table}{left}")
    outside = [name for name, result in results.items()
               if not (0.85 <= result["accuracy"] <= 0.98 and result["processor_seconds"] <= 120)]
    if outside:
        sys.exit(f"outside of 0.85 to 0.98, or longer than 120 processor seconds: {', '.join(outside)}")


main()
