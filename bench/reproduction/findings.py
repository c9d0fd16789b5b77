"""The shapes of published findings on our data: prints the figures, and exits with 1 where a shape does not hold.

    bench/setup.sh && cargo build --release -p nocebo-cli
    bench/.venv/bin/python bench/reproduction/findings.py [NAME ...]

Networks: small-cnn, trained by `nocebo train` and kept in target/attack-quality. Sources and what was printed: README.md.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ours import NETWORKS, ROOT, network, nocebo  # noqa: E402

FOLDER = ROOT / "target/attack-quality"


def audited(name, attacks, threats, count):
    """{(attack, epsilon): success rate} among the samples that the network decides right."""
    model, data = network(name, FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        nocebo("audit", "--model", model, "--data", data, "--attacks", ",".join(attacks), "--threat", threats, "--samples", count,
               "--include-images", 0, "--seed", 1, "--out", f"{folder}/out")
        found = json.loads(Path(f"{folder}/out/audit.json").read_text())["threats"]
    return {(cell["attack"].split("(")[0], threat["epsilon"]): cell["attack_success_rate"]["value"]
            for threat in found for cell in threat["cells"]}


def iterative_beats_one_step():
    """PGD and BIM fell more than one step of the gradient does, at every budget."""
    holds = True
    for name in ["pneumoniamnist", "breastmnist"]:
        rates = audited(name, ["fgsm", "bim", "pgd"], "linf:2,4,8", 100)
        for epsilon in sorted({epsilon for _, epsilon in rates}):
            one, bim, pgd = (rates[attack, epsilon] for attack in ("fgsm", "bim", "pgd"))
            print(f"  {name} linf:{epsilon:g}: FGSM {one:.3f}, BIM {bim:.3f}, PGD {pgd:.3f}")
            holds &= pgd >= one and bim >= one
        holds &= max(rates[attack, 8] for attack in ("bim", "pgd")) > rates["fgsm", 8]
    return holds


def momentum_transfers_better():
    """Points made with momentum fool other networks more often than those of the same steps without (BIM that takes all of them)."""
    name = "pneumoniamnist"
    first, data = network(name, FOLDER)
    models = [first]
    for seed in [2, 3]:
        models.append(FOLDER / f"{name}-seed{seed}.onnx")
        if not models[-1].exists():
            epochs, batch, _ = NETWORKS[name]
            nocebo("train", "--data", data, "--epochs", epochs, "--batch-size", batch, "--seed", seed, "--out", models[-1])
    holds = True
    for epsilon in [4, 8]:
        rates = []
        for decay in ["0.0", "1.0"]:
            with tempfile.TemporaryDirectory() as folder:
                nocebo("transfer", "--models", ",".join(map(str, models)), "--data", data, "--attack", f"mi-fgsm(decay={decay})",
                       "--threat", f"linf:{epsilon}", "--seed", 1, "--out", f"{folder}/transfer.json")
                fooled = json.loads(Path(f"{folder}/transfer.json").read_text())["matrix"]["fooled"]
            others = [cell["value"] for row, cells in enumerate(fooled) for column, cell in enumerate(cells) if row != column]
            rates.append(sum(others) / len(others))
        print(f"  linf:{epsilon}: other networks fooled {rates[0]:.3f} without momentum, {rates[1]:.3f} with it")
        holds &= rates[1] > rates[0]
    return holds


def universal_beats_noise():
    """One perturbation for all images fools far more of them than random perturbations of the same norm do."""
    rates = audited("pneumoniamnist", ["noise", "medical-uap(batch=16)"], "linf:4,8", 200)
    holds = True
    for epsilon in (4, 8):
        noise, uap = rates["noise", epsilon], rates["medical-uap", epsilon]
        print(f"  linf:{epsilon}: noise {noise:.3f}, medical UAP {uap:.3f}")
        holds &= uap > noise
    return holds and rates["medical-uap", 8] > 3 * rates["noise", 8]


def one_pixel_hardly_moves():
    """One pixel hardly ever changes the decision on a grey X-ray; eight grey levels everywhere nearly always do."""
    name = "pneumoniamnist"
    one = audited(name, ["one-pixel(population=60,generations=15)"], "l0:1", 40)["one-pixel", 1]
    all_ = audited(name, ["pgd"], "linf:8", 40)["pgd", 8]
    print(f"  one pixel {one:.3f}, PGD at 8 grey levels {all_:.3f}")
    return one < 0.15 and all_ > one + 0.5


FINDINGS = [iterative_beats_one_step, momentum_transfers_better, universal_beats_noise, one_pixel_hardly_moves]


def main():
    by_name = {finding.__name__: finding for finding in FINDINGS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *by_name], metavar="NAME", help=", ".join(by_name))
    missed = []
    for name in parser.parse_args().names or by_name:
        print(name, flush=True)
        if by_name[name]():
            print("  holds", flush=True)
        else:
            print("  DOES NOT HOLD", flush=True)
            missed.append(name)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
