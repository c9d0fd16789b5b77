"""Kills an audit at random moments and checks that its results do not change.

    cargo build --release -p nocebo-cli
    python bench/kill_loop.py --kills 200

One audit runs to its end undisturbed. Then the same audit is started, killed with SIGKILL after a random time, and started
again on the same folder, until it ends; its records, resolved recipe and summary (without times) must be the same to the
byte. That is repeated in new folders until the wanted number of kills is reached. Needs NumPy, for a data set of noise
with a bright square.
"""

import argparse
import hashlib
import json
import pathlib
import random
import subprocess
import tempfile
import time

import numpy as np


def data(path: pathlib.Path) -> None:
    generator = np.random.default_rng(1)
    arrays = {}
    for split, count in [("train", 120), ("val", 40), ("test", 96)]:
        labels = (np.arange(count) % 2).astype(np.uint8)
        images = generator.integers(60, 120, size=(count, 16, 16), dtype=np.uint8)
        images[labels == 1, 4:9, 4:9] += 60
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
    np.savez(path, **arrays)


def digest(folder: pathlib.Path) -> dict[str, str]:
    summary = json.loads((folder / "audit.json").read_text())
    for key in ("timings", "run", "provenance"):
        summary.pop(key, None)
    contents = {
        "records.parquet": (folder / "records.parquet").read_bytes(),
        "resolved.toml": (folder / "resolved.toml").read_bytes(),
        "audit.json": json.dumps(summary, sort_keys=True).encode(),
    }
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nocebo", default="target/release/nocebo", help="the program")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    arguments = parser.parse_args()
    nocebo = str(pathlib.Path(arguments.nocebo).resolve())
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        data(folder / "data.npz")

        def command(*words: str) -> list[str]:
            return [nocebo, *words, "--threads", "2", "--quiet"]

        train = command("train", "--data", "data.npz", "--architecture", "mlp", "--epochs", "3", "--out", "m.onnx")
        subprocess.run(train, cwd=folder, check=True, stdout=subprocess.DEVNULL)

        def audit(out: str) -> list[str]:
            return command(
                "audit", "--model", "m.onnx", "--data", "data.npz", "--threat", "linf:8,16,32", "--protocol", "standard",
                "--out", out,
            )

        start = time.monotonic()
        subprocess.run(audit("whole"), cwd=folder, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
        expected = digest(folder / "whole")
        print(f"undisturbed: {seconds:.2f} s")
        kills = rounds = 0
        while kills < arguments.kills:
            rounds += 1
            out = f"killed-{rounds}"
            while True:
                process = subprocess.Popen(audit(out), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                # Half of the kills fall into the first tenth, where files are opened and recovered.
                longest = seconds if moments.random() < 0.5 else seconds / 10
                try:
                    _, error = process.communicate(timeout=moments.uniform(0, longest))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    kills += 1
                    continue
                if process.returncode != 0:
                    raise SystemExit(f"after {kills} kills: exit code {process.returncode}: {error.decode()}")
                break
            found = digest(folder / out)
            if found != expected:
                raise SystemExit(f"after {kills} kills, round {rounds}: {found} in place of {expected}")
        print(f"{kills} kills in {rounds} audits: records, recipe and summary the same to the byte")


if __name__ == "__main__":
    main()
