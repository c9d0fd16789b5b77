"""`--protocol standard` gives the verdicts of an AutoAttack cascade built from adversarial-library and torchattacks.

    bench/setup.sh && cargo build --release
    bench/.venv/bin/python bench/cascade_agreement.py [--samples 120] [--factors 0.5 1 1.5]

A small network on MedNIST (six classes, so AutoAttack is defined), read into PyTorch with onnx2torch. The peer's cascade at each
epsilon: APGD-CE, APGD-T, targeted FAB (adversarial-library, 100 steps) and Square (torchattacks, 5000 queries), each on the
samples that still stand. Epsilon is the median of the least changes that FMN finds, times each factor: where half of the
samples fall a verdict is hardest to agree on. Exit code 1 when fewer than 98 % of the verdicts agree or a robust accuracy is more
than a point apart.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch

import peers  # noqa: F401 (adversarial-library needs it)
import adv_lib.attacks as al
import torchattacks
from ours import ROOT, Scaled, attack, network, nocebo, samples

LINF = float("inf")
LEAST, APART = 0.98, 0.01


def cascade(network, x, y, epsilon):
    """Which samples still stand after the peers' attacks."""
    targets = network(x[:1]).shape[1] - 1
    attacks = {
        "APGD-CE": lambda x, y: al.apgd(network, x, y, eps=epsilon, norm=LINF, n_iter=100, loss_function="ce"),
        "APGD-T": lambda x, y: al.apgd_targeted(
            network, x, y, eps=epsilon, norm=LINF, n_iter=100, loss_function="dlr", num_targets=min(9, targets)),
        "FAB-T": lambda x, y: al.fab(network, x, y, norm=LINF, n_iter=100, targeted=True),
        "Square": lambda x, y: torchattacks.Square(
            network, norm="Linf", eps=epsilon, n_queries=5000, n_restarts=1, p_init=0.8, loss="margin", seed=1)(x, y),
    }
    with torch.no_grad():
        stands = network(x).argmax(1) == y
    for name, run in attacks.items():
        rows = stands.nonzero().flatten()
        if len(rows) == 0:
            break
        adversarial = run(x[rows].clone(), y[rows]).detach()
        with torch.no_grad():
            fooled = network(adversarial).argmax(1) != y[rows]
        within = (adversarial - x[rows]).abs().flatten(1).amax(1) <= epsilon + 1e-6
        stands[rows] = ~(fooled & within)
        print(f"    {name}: {int(stands.sum())} stand", flush=True)
    return stands.numpy()


def ours(model, data, epsilon):
    """Which samples still stand after the protocol `standard`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "audit"
        nocebo("audit", "--model", model, "--data", data, "--threat", f"linf:{epsilon}", "--protocol", "standard", "--seed", 1,
               "--include-images", 0, "--out", out)
        records = pyarrow.parquet.read_table(out / "records.parquet").to_pylist()
    stands = {}
    for record in records:
        right = record["clean_decision"] == record["label"]
        fell = record["attack"] != "noise" and bool(record["success"])
        stands[record["sample"]] = stands.get(record["sample"], right) and not fell
    return np.array([stands[sample] for sample in sorted(stands)])


def main():
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=120)
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 1, 1.5])
    arguments = parser.parse_args()
    folder = ROOT / "target/attack-quality"
    model, data = network("mednist-64", folder)
    subset, x, y = samples(model, data, arguments.samples, folder)
    scaled = Scaled(model)
    success, distance, _ = attack(model, subset, "fmn", {"steps": 100}, "linf")
    middle = float(np.median(np.where(success, distance, np.inf)))
    equal, total, apart = 0, 0, 0.0
    for epsilon in [round(middle * factor, 3) for factor in arguments.factors]:
        print(f"  linf:{epsilon} grey levels, {len(y)} samples", flush=True)
        torch.manual_seed(1)
        theirs, own = cascade(scaled, x, y, epsilon / 255), ours(model, subset, epsilon)
        equal, total = equal + int((own == theirs).sum()), total + len(own)
        apart = max(apart, abs(own.mean() - theirs.mean()))
        print(f"linf:{epsilon}: robust accuracy {own.mean():.3f} here, {theirs.mean():.3f} there; "
              f"{int((own == theirs).sum())} of {len(own)} verdicts equal, "
              f"{int((theirs & ~own).sum())} fell only here, {int((own & ~theirs).sum())} only there", flush=True)
    print(f"{equal} of {total} verdicts equal ({equal / total:.4f}), robust accuracy at most {apart:.3f} apart")
    sys.exit(int(equal / total < LEAST or apart > APART + 1e-9))


if __name__ == "__main__":
    main()
