"""Golden vectors for Auto-PGD: every point of 100 steps of adversarial-library's APGD-CE from one start.

    bench/setup.sh && bench/.venv/bin/python bench/golden/apgd.py

Writes crates/attacks/tests/golden/apgd.toml (version, all parameters) and apgd.safetensors (network, samples, starts, and for
each norm the points). The starts are given, since the two programs draw theirs differently.
"""

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from peers import Recorded  # noqa: E402

from adv_lib.attacks.auto_pgd import _apgd  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "crates/attacks/tests/golden"
SEED, CANDIDATES, SAMPLES, FEATURES, HIDDEN, CLASSES, STEPS = 20261125, 12, 3, 16, 64, 4, 100
NORMS = {"linf": float("inf"), "l2": 2, "l1": 1}


def main():
    torch.manual_seed(SEED)
    network = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, CLASSES)
    ).eval()
    for parameter in network.parameters():
        parameter.data *= 4
        parameter.requires_grad_(False)
    candidates = 0.3 + 0.4 * torch.rand(200, FEATURES)
    two = network(candidates).topk(2).values
    # Far from the boundary: the ball is wide, and the network bends within it.
    clean = candidates[(two[:, 0] - two[:, 1]).argsort(descending=True)[:CANDIDATES]]
    labels = network(clean).argmax(1)
    arrays = {
        "hidden.weight": network[0].weight, "hidden.bias": network[0].bias,
        "head.weight": network[2].weight, "head.bias": network[2].bias,
    }
    for name, norm in NORMS.items():
        change = 2 * torch.rand(CANDIDATES, FEATURES) - 1
        change /= change.norm(p=norm, dim=1, keepdim=True)
        found = []
        for row in range(CANDIDATES):
            one = slice(row, row + 1)

            def run(epsilon):
                recorded = Recorded(network, repeated=True)
                start = clean[one] + epsilon * change[one]
                _, falls, _, _ = _apgd(recorded, clean[one], labels[one], torch.tensor([epsilon]), norm, x_init=start,
                                       n_iter=STEPS, loss_function="ce")
                return falls.item(), torch.cat(recorded.points)

            # Nearly the greatest epsilon at which the sample holds: a sample that falls has a short path.
            low, high = 0.0, 4.0
            for _ in range(12):
                middle = (low + high) / 2
                low, high = (low, middle) if run(middle)[0] else (middle, high)
            epsilon = round(0.95 * low, 4)
            falls, points = run(epsilon)
            assert not falls and len(points) == STEPS + 1
            found.append((len(points.unique(dim=0)), row, epsilon, points))
        # The longest ways: some samples run into a corner of the ball and stay there.
        found = sorted(found, key=lambda entry: -entry[0])[:SAMPLES]
        print(f"{name}: epsilons {[entry[2] for entry in found]}, different points {[entry[0] for entry in found]}")
        rows = [entry[1] for entry in found]
        arrays |= {f"{name}.clean": clean[rows], f"{name}.labels": labels[rows],
                   f"{name}.epsilons": torch.tensor([entry[2] for entry in found]),
                   f"{name}.points": torch.stack([entry[3] for entry in found])}
    arrays = {name: np.ascontiguousarray(array.detach().numpy()) for name, array in arrays.items()}
    save_file(arrays, FOLDER / "apgd.safetensors")
    (FOLDER / "apgd.toml").write_text(
        f"""# Made by bench/golden/apgd.py.
script = "bench/golden/apgd.py"
torch = "{torch.__version__.split('+')[0]}"
adv-lib = "{importlib.metadata.version('adv-lib')}"
call = "_apgd(x_init, targeted=False, n_iter={STEPS}, loss_function='ce', eot_iter=1, rho=0.75)"
seed = {SEED}
bounds = [0.0, 1.0]
steps = {STEPS}
rho = 0.75
# DIFFERENCE: nocebo's cross-entropy is the log-odds: the same order of points, the same direction of gradients.
# DIFFERENCE: the peer counts the first step as one that raised the objective, whatever it did; nocebo compares it with the start.
# DIFFERENCE: a point that a checkpoint goes back to is not asked about again by either.
"""
    )


if __name__ == "__main__":
    main()
