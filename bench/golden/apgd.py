"""Golden vectors for Auto-PGD: every point of 100 steps of adversarial-library's APGD-CE from one start.

    bench/setup.sh && bench/.venv/bin/python bench/golden/apgd.py

Writes crates/attacks/tests/golden/apgd.toml (version, all parameters) and apgd.safetensors (network, samples, starts, and for
each norm the points). The starts are given, since the two programs draw theirs differently.
"""

import importlib.metadata
import inspect
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from peers import Recorded  # noqa: E402

from adv_lib.attacks import auto_pgd  # noqa: E402

# The peer remembers the best objective of the last checkpoint as the very tensor that it goes on changing, so that after
# the first checkpoint the best never seems to have grown. AutoAttack, the paper and nocebo compare with its value then.
ALIAS = "loss_best_last_check = loss_best\n"
SOURCE = inspect.getsource(auto_pgd)
assert SOURCE.count(ALIAS) == 1
exec(compile(SOURCE.replace(ALIAS, "loss_best_last_check = loss_best.clone()\n"), "auto_pgd", "exec"), PEER := {})
_apgd = PEER["_apgd"]

FOLDER = Path(__file__).resolve().parents[2] / "crates/attacks/tests/golden"
SEED, CANDIDATES, SAMPLES, FEATURES, HIDDEN, CLASSES, STEPS = 20261125, 12, 3, 16, 64, 4, 100
NORMS = {"linf": float("inf"), "l2": 2, "l1": 1}


def main():
    torch.set_num_threads(1)
    # The cross-entropy of a sure network is lost in 32 bits, and with it which of two points is better.
    torch.set_default_dtype(torch.float64)
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

        def run(epsilon):
            recorded = Recorded(network, repeated=True)
            start = clean + epsilon.unsqueeze(1) * change
            _, falls, _, _ = _apgd(recorded, clean, labels, epsilon, norm, x_init=start, n_iter=STEPS, loss_function="ce")
            return falls, torch.stack(recorded.points, 1)

        # Nearly the greatest epsilon at which a sample holds: one that falls has a short path.
        low, high = torch.zeros(CANDIDATES), torch.full((CANDIDATES,), 4.0)
        for _ in range(12):
            middle = (low + high) / 2
            falls, _ = run(middle)
            low, high = torch.where(falls, low, middle), torch.where(falls, middle, high)
        epsilon = (0.95e4 * low).round() / 1e4
        falls, points = run(epsilon)
        assert not falls.any() and points.shape[1] == STEPS + 1
        found = [(len(points[row].unique(dim=0)), row, round(epsilon[row].item(), 4), points[row]) for row in range(CANDIDATES)]
        # The longest ways: some samples run into a corner of the ball and stay there.
        found = sorted(found, key=lambda entry: -entry[0])[:SAMPLES]
        print(f"{name}: epsilons {[entry[2] for entry in found]}, different points {[entry[0] for entry in found]}")
        rows = [entry[1] for entry in found]
        arrays |= {f"{name}.clean": clean[rows], f"{name}.labels": labels[rows],
                   f"{name}.epsilons": torch.tensor([entry[2] for entry in found]),
                   f"{name}.points": torch.stack([entry[3] for entry in found])}
    arrays = {name: array.float() if array.is_floating_point() else array for name, array in arrays.items()}
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
# DIFFERENCE: the peer's best objective of the last checkpoint is an alias of the running best; the script copies it instead.
# DIFFERENCE: the peer counts the first step as one that raised the objective, whatever it did; nocebo compares it with the start.
# DIFFERENCE: the peer runs in 64 bits, since it compares objectives that 32 bits cannot tell apart; nocebo runs in 32.
# DIFFERENCE: a point that a checkpoint goes back to is not asked about again by either.
"""
    )


if __name__ == "__main__":
    main()
