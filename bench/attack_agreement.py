"""nocebo's APGD-CE, APGD-T, FAB and Square give the verdicts of adversarial-library and torchattacks.

    bench/setup.sh && cargo build --release -p nocebo-cli
    bench/.venv/bin/python bench/attack_agreement.py [--samples 102] [--factors 0.5 1 2] [--seeds 1 2] [--networks NAME ...]

The same network (small-cnn, ONNX read into PyTorch with onnx2torch), samples, epsilon and number of steps; verdict of a sample:
whether it falls. Epsilon is the budget at which half of the samples fall to FMN, where a verdict is hardest to agree on, times
each factor. Prints the share of equal verdicts and exits with 1 where it is below 98 % for an attack. The random
starts and squares are drawn otherwise, so a sample just at its boundary may differ; the peer's agreement with itself under
a second seed is printed beside, and of each sample that differs how near its boundary it lies.
"""

import argparse
import sys
import warnings

import numpy as np
import torch

import peers  # noqa: F401 (adversarial-library needs it)
import adv_lib.attacks as al
import torchattacks
from ours import NETWORKS, ROOT, Scaled, attack, network, samples

LEAST = 0.98
LINF = float("inf")


def runs(classes, steps, queries):
    """(name, attack, settings, peer's run at an epsilon in [0, 1])."""
    peer_targets = {"num_targets": min(9, classes - 1)}
    found = [
        ("APGD-CE", "apgd", {"steps": steps}, lambda n, x, y, e: al.apgd(n, x, y, eps=e, norm=LINF, n_iter=steps, loss_function="ce")),
        ("FAB", "fab", {"steps": steps}, lambda n, x, y, e: al.fab(n, x, y, norm=LINF, n_iter=steps)),
        ("Square", "square", {"queries": queries}, lambda n, x, y, e: torchattacks.Square(
            n, norm="Linf", eps=e, n_queries=queries, n_restarts=1, p_init=0.8, loss="margin", resc_schedule=False,
            seed=int(torch.initial_seed()))(x, y)),
    ]
    if classes > 3:
        found.insert(1, ("APGD-T", "apgd-t", {"steps": steps}, lambda n, x, y, e: al.apgd_targeted(
            n, x, y, eps=e, norm=LINF, n_iter=steps, loss_function="dlr", **peer_targets)))
    return found


def falls(model, x, y, epsilon, adversarial):
    with torch.no_grad():
        fooled = model(adversarial).argmax(1) != y
    return (fooled & ((adversarial - x).abs().flatten(1).amax(1) <= epsilon + 1e-6)).numpy()


def main():
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=102)
    parser.add_argument("--steps", type=int, default=100, help="of the attacks that see gradients")
    parser.add_argument("--queries", type=int, default=1000, help="of Square")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="of the peer: the first is compared with nocebo")
    parser.add_argument("--attacks", nargs="+", help="APGD-CE, APGD-T, FAB, Square; all by default")
    parser.add_argument("--networks", nargs="+", default=["pneumoniamnist", "mednist-64"], choices=list(NETWORKS))
    arguments = parser.parse_args()
    folder = ROOT / "target/attack-quality"
    agreed = {}
    for name in arguments.networks:
        model, data = network(name, folder)
        subset, x, y = samples(model, data, arguments.samples, folder)
        scaled = Scaled(model)
        success, distance, _ = attack(model, subset, "fmn", {"steps": 100}, "linf")
        nearest = np.where(success, distance, np.inf)
        middle = float(np.median(nearest))
        for title, ours, settings, theirs in runs(scaled(x[:1]).shape[1], arguments.steps, arguments.queries):
            if arguments.attacks and title not in arguments.attacks:
                continue
            equal, itself, total = 0, 0, 0
            for epsilon in [middle * factor for factor in arguments.factors]:
                success, distance, _ = attack(model, subset, ours, settings, "linf", epsilon)
                own = success & (distance <= epsilon * (1 + 1e-5))
                others = []
                for seed in arguments.seeds:
                    torch.manual_seed(seed)
                    others.append(falls(scaled, x, y, epsilon / 255, theirs(scaled, x.clone(), y, epsilon / 255).detach()))
                equal += int((own == others[0]).sum())
                itself += int((others[0] == others[-1]).sum())
                for row in np.flatnonzero(own != others[0]):
                    print(f"    sample {row}: {'nocebo' if own[row] else 'the peer'} alone fells it; FMN needed "
                          f"{nearest[row] / epsilon:.3f} of this budget")
                total += len(own)
                print(f"  {name} {title} linf:{epsilon:.3f}: falls {own.mean():.3f}, peer {others[0].mean():.3f}", flush=True)
            print(f"{name} {title}: {equal} of {total} verdicts equal ({equal / total:.4f})"
                  + (f"; peer with itself {itself / total:.4f}" if len(arguments.seeds) > 1 else ""), flush=True)
            agreed[title] = np.add(agreed.get(title, (0, 0)), (equal, total))
    shares = {title: equal / total for title, (equal, total) in agreed.items()}
    for title, share in shares.items():
        print(f"{title}: {share:.4f}")
    sys.exit(int(min(shares.values()) < LEAST))


if __name__ == "__main__":
    main()
