"""How far two runs of sigma-zero differ that differ only by rounding, and nocebo's beside them.

    bench/setup.sh && cargo build --release
    bench/.venv/bin/python bench/sigma_zero.py [--samples 60] [--steps 10 200 1000] [--networks pneumoniamnist breastmnist]

The peer (adversarial-library) computes in 32 bits, in 64 bits, and in 32 bits with inputs scaled by 1 + 10⁻⁶. Prints the mean number
of changed elements of each run, and on how many samples it is nearer or farther than the peer in 32 bits.
"""

import argparse
import warnings

import numpy as np
import torch

import peers  # noqa: F401 (adversarial-library needs it)
import adv_lib.attacks as al
from ours import NETWORKS, ROOT, Scaled, attack, network, samples


class Nudged(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x * (1 + 1e-6))


def changed(network, x, y, steps):
    found = al.sigma_zero(network, x.clone(), y, num_steps=steps)
    with torch.no_grad():
        falls = network(found).argmax(1) != y
    return torch.where(falls, (found != x).flatten(1).sum(1).double(), torch.inf).numpy()


def main():
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 200, 1000])
    parser.add_argument("--networks", nargs="+", default=["pneumoniamnist", "breastmnist"], choices=list(NETWORKS))
    arguments = parser.parse_args()
    folder = ROOT / "target/attack-quality"
    for name in arguments.networks:
        model, data = network(name, folder)
        subset, x, y = samples(model, data, arguments.samples, folder)
        for steps in arguments.steps:
            net = Scaled(model)
            runs = {"peer, 32 bits": changed(net, x, y, steps), "peer, scaled": changed(Nudged(net), x, y, steps),
                    "peer, 64 bits": changed(net.double(), x.double(), y, steps)}
            success, distance, _ = attack(model, subset, "sigma-zero", {"steps": steps}, "l0")
            runs["nocebo"] = np.where(success, distance, np.inf)
            first = runs["peer, 32 bits"]
            for who, run in runs.items():
                found = run[np.isfinite(run)]
                print(f"{name}, {steps} steps, {who}: {len(found)} of {len(run)} fell, mean {found.mean():.1f}, "
                      f"nearer {int((run < first).sum())}, farther {int((run > first).sum())}", flush=True)


if __name__ == "__main__":
    main()
