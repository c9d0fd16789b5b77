"""Trains a small network of the zoo on every phantom modality (but `ct-volume`: the zoo has no 3-D classifier) and prints how well it does.

    python bench/phantoms.py NOCEBO FOLDER [MODALITY ...]

NOCEBO is the program (`target/release/nocebo`); data and networks are left in FOLDER, and data that are there already are
used as they are. Every network should reach a test accuracy of 0.85 to 0.98: a finding that nobody misses, or nobody finds,
makes a poor test.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

SMALL = "--architecture small-cnn --epochs 10 --batch-size 32 --learning-rate 0.003"
SIGNAL = "--architecture resnet1d --epochs 4 --batch-size 32 --learning-rate 0.001"
# Samples, and how the network is trained.
RUNS = {
    "chest-xray": (2000, SMALL),
    "ct-slice": (2000, SMALL),
    "brain-mri": (2000, SMALL),
    "ultrasound": (1500, SMALL),
    "fundus": (1500, SMALL),
    "dermoscopy": (1500, SMALL),
    "oct": (1500, SMALL),
    "mammogram": (2000, SMALL),
    "histology": (1500, SMALL),
    "ecg": (1500, SIGNAL),
    "eeg": (2000, SIGNAL),
    "ppg": (1500, SIGNAL),
    "ehr": (3000, "--architecture mlp --epochs 10 --batch-size 32 --learning-rate 0.001"),
}


def main():
    nocebo, folder, *wanted = sys.argv[1:]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    print("| modality | samples | network | test accuracy | seconds |\n|---|---|---|---|---|", flush=True)
    for modality in wanted or RUNS:
        count, training = RUNS[modality]
        data = folder / modality
        if not data.exists():
            command = f"{nocebo} phantom {modality} --count {count} --seed 1 --out {data}"
            subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL)
        archive = data / "phantoms.npz"
        model = folder / f"{modality}.onnx"
        started = time.time()
        command = f"{nocebo} train --data {archive if archive.exists() else data} {training} --seed 1 --quiet --out {model}"
        out = subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout
        accuracy = re.search(r"test accuracy ([0-9.]+)", out)
        network = training.split()[1]
        print(f"| {modality} | {count} | {network} | {accuracy[1] if accuracy else out} | {time.time() - started:.0f} |", flush=True)


main()
