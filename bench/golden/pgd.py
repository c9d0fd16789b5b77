"""Golden vectors for PGD and FGSM: Foolbox and torchattacks on one small network, every iterate kept.

    bench/setup.sh && bench/.venv/bin/python bench/golden/pgd.py

Writes crates/attacks/tests/golden/pgd.toml (names, versions, all parameters) and pgd.safetensors (the network, the
clean samples, the iterates of each peer). A peer returns its last iterate only, so iterate t is a run of t steps from
the same start: neither peer draws a random start here.
"""

from pathlib import Path

import foolbox
import numpy as np
import torch
import torchattacks
from safetensors.numpy import save_file

FOLDER = Path(__file__).resolve().parents[2] / "crates/attacks/tests/golden"
SEED, SAMPLES, FEATURES, HIDDEN, CLASSES = 20261123, 16, 24, 32, 3
EPSILON, STEP, STEPS = 0.1, 0.015, 12
EPSILON_L2, STEP_L2, BOUNDS_L2 = 1.0, 0.15, (-10, 10)


def main():
    torch.manual_seed(SEED)
    network = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, CLASSES)
    ).eval()
    for parameter in network.parameters():
        parameter.data *= 3
    clean = torch.rand(SAMPLES, FEATURES)
    labels = network(clean).argmax(1)

    def by_foolbox(attack, epsilon, bounds):
        model = foolbox.PyTorchModel(network, bounds=bounds, device="cpu")
        return lambda steps: attack(steps).run(model, clean, labels, epsilon=epsilon)

    runs = {
        "foolbox_linf": by_foolbox(
            lambda steps: foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=steps, random_start=False), EPSILON, (0, 1)
        ),
        "foolbox_l2": by_foolbox(
            lambda steps: foolbox.attacks.L2PGD(abs_stepsize=STEP_L2, steps=steps, random_start=False), EPSILON_L2, BOUNDS_L2
        ),
        "torchattacks_linf": lambda steps: torchattacks.PGD(
            network, eps=EPSILON, alpha=STEP, steps=steps, random_start=False
        )(clean, labels),
        "torchattacks_fgsm": lambda steps: torchattacks.FGSM(network, eps=EPSILON)(clean, labels),
    }
    arrays = {
        "clean": clean,
        "labels": labels,
        "hidden.weight": network[0].weight,
        "hidden.bias": network[0].bias,
        "head.weight": network[2].weight,
        "head.bias": network[2].bias,
    }
    for name, run in runs.items():
        count = 1 if name.endswith("fgsm") else STEPS
        arrays[name] = torch.stack([run(steps) for steps in range(1, count + 1)])
    arrays = {name: np.ascontiguousarray(array.detach().numpy()) for name, array in arrays.items()}
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_file(arrays, FOLDER / "pgd.safetensors")
    (FOLDER / "pgd.toml").write_text(
        f"""# Made by bench/golden/pgd.py.
script = "bench/golden/pgd.py"
torch = "{torch.__version__.split('+')[0]}"
foolbox = "{foolbox.__version__}"
torchattacks = "{torchattacks.__version__}"
seed = {SEED}
bounds_linf = [0.0, 1.0]
bounds_l2 = {[float(bound) for bound in BOUNDS_L2]}
loss = "cross-entropy, untargeted"
random_start = false
steps = {STEPS}
epsilon_linf = {EPSILON}
step_linf = {STEP}
epsilon_l2 = {EPSILON_L2}
step_l2 = {STEP_L2}
# DIFFERENCE: nocebo stops a sample at the first iterate that reaches the goal; the peers return the last iterate of all
# steps. Every iterate is stored, so each sample is compared at the step where nocebo stops.
# DIFFERENCE: for L2 the peers project onto the ball and then clip; nocebo projects onto ball and bounds at once. The
# bounds of the L2 run are out of reach, where the two are the same.
"""
    )


if __name__ == "__main__":
    main()
