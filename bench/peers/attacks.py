"""Whole attacks: nocebo against Foolbox, torchattacks, ART and adversarial-library, verdicts compared sample by sample.

    bench/setup.sh && cargo build --release -p nocebo-cli
    bench/.venv/bin/python bench/peers/attacks.py [--samples 16] [--rounds 3] [--only pgd] [--out results.json]

One ResNet-18 for PneumoniaMNIST (trained briefly by nocebo the first time, kept in target/), read by the peers with onnx2torch
with its parameters frozen; the same samples, which the network decides right, the same budgets, numbers of steps and threads.
The sides take turns, round by round. Times are those of the attack alone: loading, planning and the check of the result are left
out on both sides. Every answer is checked by PyTorch: a sample falls where the answer is within epsilon and decided wrong (without
epsilon: decided wrong; the median distance is printed beside). `pgd, none falls` has an epsilon at which nobody stops early.
Prints a table and writes JSON.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

import peers  # noqa: F401 (adversarial-library needs it)
import adv_lib.attacks as al
import foolbox
import torchattacks
from art.attacks import evasion
from art.estimators.classification import PyTorchClassifier
from ours import DATA, PROGRAM, ROOT, Scaled, nocebo, samples, spelled


def attacks(net, classes, steps, queries):
    """Name, nocebo's attack, norm, epsilon in grey levels or none, and each peer's run on (x, y)."""
    fool = foolbox.PyTorchModel(net, bounds=(0, 1))
    loss = torch.nn.CrossEntropyLoss()

    def by_art(make):
        def run(x, y):
            classifier = PyTorchClassifier(net, loss, tuple(x.shape[1:]), classes, clip_values=(0, 1))
            return torch.from_numpy(make(classifier, len(x)).generate(x.numpy(), y.numpy()))
        return run

    def by_foolbox(make, epsilon=None):
        return lambda x, y: make()(fool, x, y, epsilons=epsilon)[1]

    def pgd(title, levels):
        epsilon = levels / 255
        return (title, "pgd", {"steps": 40}, "linf", levels, {
            "Foolbox": by_foolbox(lambda: foolbox.attacks.LinfPGD(steps=40, rel_stepsize=0.1), epsilon),
            "torchattacks": lambda x, y: torchattacks.PGD(net, eps=epsilon, alpha=epsilon / 10, steps=40)(x, y),
            "ART": by_art(lambda c, n: evasion.ProjectedGradientDescentPyTorch(
                c, eps=epsilon, eps_step=epsilon / 10, max_iter=40, num_random_init=1, batch_size=n, verbose=False)),
            "adv-lib": lambda x, y: al.pgd_linf(net, x, y, epsilon, steps=40, relative_step_size=0.1),
        })

    apgd = ("apgd", "apgd", {"steps": steps}, "linf", 2.0, {
        "torchattacks": lambda x, y: torchattacks.APGD(net, eps=2 / 255, steps=steps, loss="ce")(x, y),
        "ART": by_art(lambda c, n: evasion.AutoProjectedGradientDescent(
            c, norm=np.inf, eps=2 / 255, eps_step=4 / 255, max_iter=steps, nb_random_init=1, batch_size=n,
            loss_type="cross_entropy", verbose=False)),
        "adv-lib": lambda x, y: al.apgd(net, x, y, 2 / 255, float("inf"), n_iter=steps, loss_function="ce"),
    })
    deep = ("deepfool", "deepfool", {"steps": 50}, "l2", None, {
        "Foolbox": by_foolbox(lambda: foolbox.attacks.L2DeepFoolAttack(steps=50)),
        "torchattacks": lambda x, y: torchattacks.DeepFool(net, steps=50)(x, y),
        "ART": by_art(lambda c, n: evasion.DeepFool(c, max_iter=50, epsilon=0.02, batch_size=n, verbose=False)),
        "adv-lib": lambda x, y: al.df(net, x, y, steps=50),
    })
    search = {"search_steps": 2, "steps": steps, "initial_constant": 1.0}
    carlini = ("carlini-wagner", "carlini-wagner-l2", search, "l2", None, {
        "Foolbox": by_foolbox(lambda: foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=2, steps=steps, stepsize=0.01, initial_const=1.0)),
        "ART": by_art(lambda c, n: evasion.CarliniL2Method(
            c, binary_search_steps=2, max_iter=steps, learning_rate=0.01, initial_const=1.0, batch_size=n, verbose=False)),
        "adv-lib": lambda x, y: al.carlini_wagner_l2(
            net, x, y, binary_search_steps=2, max_iterations=steps, initial_const=1.0),
    })
    square = ("square", "square", {"queries": queries}, "linf", 4.0, {
        "torchattacks": lambda x, y: torchattacks.Square(
            net, eps=4 / 255, n_queries=queries, p_init=0.8, loss="margin", resc_schedule=False, seed=1)(x, y),
        "ART": by_art(lambda c, n: evasion.SquareAttack(
            c, norm=np.inf, eps=4 / 255, max_iter=queries, p_init=0.8, nb_restarts=1, batch_size=n, verbose=False)),
    })
    return [pgd("pgd, none falls", 0.01), pgd("pgd", 2.0), pgd("pgd, most fall", 8.0), apgd, deep, carlini, square]


def ours(model, data, attack, norm, epsilon, threads):
    """Seconds of nocebo's attack, and its answer in [0, 1]."""
    name, settings = attack
    with tempfile.TemporaryDirectory() as folder:
        command = [PROGRAM, "attack", "--model", model, "--data", data, "--attack", spelled(name, settings), "--threat",
                   f"{norm}:{'inf' if epsilon is None else epsilon}", "--seed", "1", "--threads", threads, "--out", f"{folder}/out"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        rows = json.loads(Path(f"{folder}/out/attack.json").read_text())["samples"]
    seconds = float(re.search(r"the attack took ([\d.]+) s", done.stderr).group(1))
    return seconds, np.array([row["success"] for row in rows]), np.array([row["distance"] for row in rows], float)


def judged(net, x, y, answer, norm, epsilon):
    """Which samples fall to a peer's answer, and their distances in grey levels."""
    change = (answer.detach() - x).flatten(1) * 255
    distance = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    with torch.no_grad():
        wrong = net(answer.detach()).argmax(1) != y
    near = distance <= (float("inf") if epsilon is None else epsilon * (1 + 1e-4))
    return (wrong & near).numpy(), distance.numpy()


def main():
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25, help="of APGD, and of each search step of Carlini & Wagner")
    parser.add_argument("--queries", type=int, default=100, help="of Square")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="attacks whose name contains this")
    parser.add_argument("--out", default=str(ROOT / "target/peers-attacks.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = ROOT / "target/peers-attacks"
    folder.mkdir(parents=True, exist_ok=True)
    model, data = folder / "resnet18.onnx", DATA / "pneumoniamnist/pneumoniamnist.npz"
    if not model.exists():
        nocebo("train", "--data", data, "--architecture", "resnet18", "--balanced", 384, "--batch-size", 32, "--epochs", 1,
               "--seed", 1, "--out", model)
    subset, x, y = samples(model, data, arguments.samples, folder)
    net = Scaled(model)
    results = []
    for title, name, settings, norm, epsilon, others in attacks(net, 2, arguments.steps, arguments.queries):
        if arguments.only not in title:
            continue
        result = {"attack": title, "norm": norm, "epsilon": epsilon, "settings": settings, "samples": len(x), "seconds": {}, "falls": {},
                  "distance": {}}
        for _ in range(arguments.rounds):
            for side in ["nocebo", *others]:
                if side == "nocebo":
                    seconds, falls, distance = ours(model, subset, (name, settings), norm, epsilon, arguments.threads)
                else:
                    torch.manual_seed(1)
                    np.random.seed(1)
                    start = time.perf_counter()
                    answer = others[side](x.clone(), y.clone())
                    seconds = time.perf_counter() - start
                    falls, distance = judged(net, x, y, answer, norm, epsilon)
                result["seconds"].setdefault(side, []).append(seconds)
                result["falls"][side] = falls.tolist()
                result["distance"][side] = float(np.median(distance[falls])) if falls.any() else None
        results.append(result)
        least = {side: min(times) for side, times in result["seconds"].items()}
        fastest = min((side for side in least if side != "nocebo"), key=least.get)
        print(f"| {title} |", end="")
        for side in ["nocebo", "Foolbox", "torchattacks", "ART", "adv-lib"]:
            times = sorted(result["seconds"].get(side, []))
            if not times:
                print(" |", end="")
                continue
            equal = sum(a == b for a, b in zip(result["falls"][side], result["falls"]["nocebo"]))
            verdict = f"{sum(result['falls'][side])} fall" if side == "nocebo" else f"{equal} equal"
            far = "" if epsilon is not None or result["distance"][side] is None else f", {result['distance'][side]:.1f}"
            print(f" {statistics.median(times):.2f} [{times[0]:.2f}, {times[-1]:.2f}] {verdict}{far} |", end="")
        median = {side: statistics.median(times) for side, times in result["seconds"].items()}
        print(f" {median[fastest] / median['nocebo']:.1f}, {least[fastest] / least['nocebo']:.1f} ({fastest}) |", flush=True)
    Path(arguments.out).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
