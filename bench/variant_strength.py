"""For two classes, the variant of `--protocol standard` is at least as strong as every single attack of the library.

    bench/setup.sh && cargo build --release
    bench/.venv/bin/python bench/variant_strength.py [--samples 64] [--norms linf l2] [--networks pneumoniamnist ...]

Three trained networks: small networks on PneumoniaMNIST and BreastMNIST, and the first one hardened. One audit runs the
protocol, another every attack that knows the norm, alone; epsilon is the median least change that FMN finds. Prints the
robust accuracy after each, and the samples that an attack brought down while the protocol did not. Exit code 1 where a single
attack leaves a lower robust accuracy.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet

from ours import ROOT, attack, network, nocebo, samples


NETWORKS = ["pneumoniamnist", "breastmnist", "pneumoniamnist-hardened"]


def attacks(norm):
    """Names of all attacks that know `norm`, but controls and wrappers."""
    rows = [line.split() for line in nocebo("attacks").splitlines()[1:]]
    return [row[0] for row in rows if norm in row[2].split(",") and row[1] != "control"]


def standing(model, data, norm, epsilon, *choice):
    """Of each attack, the samples that stand after it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "audit"
        nocebo("audit", "--model", model, "--data", data, "--threat", f"{norm}:{epsilon}", "--seed", 1,
               "--include-images", 0, *choice, "--out", out)
        records = pyarrow.parquet.read_table(out / "records.parquet").to_pylist()
    found = {}
    for record in records:
        right = record["clean_decision"] == record["label"]
        found.setdefault(record["attack"], {})[record["sample"]] = right and not record["success"]
    found.pop("noise", None)
    return {name: np.array([stands[sample] for sample in sorted(stands)]) for name, stands in found.items()}


def hardened(model, data):
    path = model.with_name(f"{model.stem}-hardened.onnx")
    if not path.exists():
        nocebo("harden", model, "--data", data, "--threat", "linf:4", "--epochs", 3, "--seed", 1, "--out", path)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--norms", nargs="+", default=["linf", "l2"], choices=["l1", "l2", "linf"])
    parser.add_argument("--attacks", nargs="+", help="all of the norm by default")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    arguments = parser.parse_args()
    folder = ROOT / "target/attack-quality"
    weaker = 0
    for title in arguments.networks:
        name, *hard = title.split("-")
        model, data = network(name, folder)
        if hard:
            model = hardened(model, data)
        subset, _, labels = samples(model, data, arguments.samples, folder)
        for norm in arguments.norms:
            success, distance, _ = attack(model, subset, "fmn", {"steps": 100}, norm)
            epsilon = round(float(np.median(np.where(success, distance, np.inf))), 3)
            protocol = np.logical_and.reduce(
                list(standing(model, subset, norm, epsilon, "--protocol", "standard").values()))
            print(f"{title}, {norm}:{epsilon}, {len(labels)} samples: robust accuracy {protocol.mean():.3f} after the protocol",
                  flush=True)
            for name in arguments.attacks or attacks(norm):
                try:
                    alone = standing(model, subset, norm, epsilon, "--attacks", name)[name]
                except (RuntimeError, KeyError) as error:
                    print(f"  {name}: not run: {str(error).splitlines()[-1]}", flush=True)
                    continue
                beyond = int((protocol & ~alone).sum())
                note = f", {beyond} samples that the protocol left standing" if beyond else ""
                print(f"  {name}: {alone.mean():.3f}{note}", flush=True)
                weaker += alone.mean() < protocol.mean()
    print(f"{weaker} attacks were stronger than the protocol")
    sys.exit(int(weaker > 0))


if __name__ == "__main__":
    main()
