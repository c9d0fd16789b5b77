"""How good the attacks are: nocebo's and the peers' on the same small networks and samples.

    bench/setup.sh && cargo build --release -p nocebo-cli
    bench/.venv/bin/python bench/attack_quality.py [--samples 24] [--steps 200] [--networks NAME ...] [--seconds 450]

On a small-cnn for each of PneumoniaMNIST, BreastMNIST and MedNIST (trained once, kept in target/attack-quality):

1. Every attack that seeks the nearest point, and those with a budget through a bisection of it for each sample, with the peers'
   implementations of the same attack at the same number of steps: the share of samples that fell, the median distance (grey
   levels; elements in L0), and the local optimality of AttackBench (Cinà et al. 2025, arXiv:2404.19460):
   1 - (area - best) / (reach - best), where an area is that under robust accuracy against distance, up to the reach, the farthest
   of the best distances, and the best is that of the nearest point that any run of either side found for each sample. A peer is
   credited with the nearest point that it ever asked about, whatever it returned.
2. Every attack of the catalogue with a budget, at a budget from which the best of 1 gains most of the samples.

Each run is kept (target/attack-quality/runs), those of nocebo under the digest of the program: after --seconds it makes the table of
those that it has and ends with exit code 4, and the same command continues. The table goes to bench/attack_quality.json and, as Markdown, to standard output. Exit code 1
where a bar of BARS is missed.
"""

import argparse
import hashlib
import importlib.metadata
import json
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import peers  # noqa: F401 (adversarial-library needs it)
import adv_lib.attacks as al
import art.attacks.evasion
import art.estimators.classification
import foolbox
from adv_lib.attacks.augmented_lagrangian import all_penalties
from ours import NETWORKS, PROGRAM, ROOT, Scaled, attack, network, nocebo, samples, spelled, subset_of

ORDER = {"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0}
# Least local optimality in the norm; no attack may lie further below the best peer's version of itself than SLACK.
BARS = {("apgd", "linf"): 0.96, ("ddn", "l2"): 0.90, ("fmn", "l2"): 0.90, ("pdpgd", "l1"): 0.90, ("sigma-zero", "l0"): 0.95}
SLACK = 0.03
# Ratio of two neighbouring budgets of the bisection.
RUNG = 1.02
PACKAGES = {"adv-lib": "adv-lib", "foolbox": "foolbox", "art": "adversarial-robustness-toolbox"}


class OutOfQueries(Exception):
    """The peer asked more than it may."""


class Nearest(torch.nn.Module):
    """A network that keeps, for each clean sample, the distance of the nearest point asked about that fools it."""

    def __init__(self, network, x, y, norm, most_queries=float("inf")):
        super().__init__()
        self.network, self.x, self.y, self.norm = network, x, y, norm
        self.most = most_queries * len(x)
        self.distances = np.full(len(x), np.inf)
        self.passes = 0
        self.eval()

    def forward(self, points):
        if self.passes >= self.most:
            raise OutOfQueries
        points = points.float()
        logits = self.network(points)
        self.passes += len(points)
        if logits.requires_grad:
            logits.register_hook(self.count)
        self.look(points.detach(), logits.detach())
        return logits

    def count(self, gradient):
        self.passes += len(gradient)

    def look(self, points, logits):
        flat = points.flatten(1)
        # Peers ask about parts of a batch, and in other orders: a point belongs to the clean sample that it is nearest to.
        rows = torch.cdist(flat, self.x.flatten(1)).argmin(1)
        good = (logits.argmax(1) != self.y[rows]) & (flat >= -1e-6).all(1) & (flat <= 1 + 1e-6).all(1)
        away = (flat - self.x[rows].flatten(1)).norm(p=ORDER[self.norm], dim=1).double()
        for row, distance in zip(rows[good].tolist(), away[good].tolist()):
            self.distances[row] = min(self.distances[row], distance * (1 if self.norm == "l0" else 255))


def adv_lib(function, **parameters):
    return lambda model, x, y: function(model, x, y, **parameters)


def by_foolbox(instance):
    return lambda model, x, y: instance.run(foolbox.PyTorchModel(model, bounds=(0, 1)), x, foolbox.criteria.Misclassification(y))


def by_art(make):
    def run(model, x, y):
        with torch.no_grad():
            classes = model.network(x[:1]).shape[1]
        classifier = art.estimators.classification.PyTorchClassifier(
            model=model, loss=torch.nn.CrossEntropyLoss(), input_shape=x.shape[1:], nb_classes=classes, clip_values=(0, 1))
        found = make(classifier).generate(x.numpy(), np.eye(classes, dtype=np.float32)[y.numpy()])
        return torch.from_numpy(found)

    return run


def minimum_norm(steps, classes):
    """(attack, norm, nocebo's settings, {peer: run}) of the attacks that seek the nearest point; a step is a pass each way."""
    s, fb = {"steps": steps}, foolbox.attacks
    tenth = steps // 10
    found = []
    for norm, p in ORDER.items():
        found += [
            ("fmn", norm, s, {"adv-lib": adv_lib(al.fmn, norm=p, steps=steps)}),
            ("pdpgd", norm, s, {"adv-lib": adv_lib(al.pdpgd, norm=p, num_steps=steps, proximal_operator=None if p else 23)}),
            ("brendel-bethge", norm, s, {}),
        ]
        if p:
            each = max(steps // classes, 10)
            found.append(("fab", norm, {"steps": each}, {"adv-lib": adv_lib(al.fab, norm=p, n_iter=each)}))
    # The peer's ALMA asks for the third logit.
    for norm, first in [("l2", 0.1), ("l1", 0.5)]:
        peer = {"adv-lib": adv_lib(al.alma, distance=norm, init_lr_distance=first, num_steps=steps, penalty=all_penalties["P2"], α=0.9)}
        found.append(("alma", norm, s, peer if classes > 2 else {}))
    search = {"search_steps": 5, "steps": steps // 5, "initial_constant": 1.0, "abort_early": False}
    found += [
        ("ddn", "l2", {**s, "quantise": False}, {"adv-lib": adv_lib(al.ddn, steps=steps, levels=None),
                                                 "foolbox": by_foolbox(fb.DDNAttack(steps=steps))}),
        ("deepfool", "l2", {"steps": 50}, {"adv-lib": adv_lib(al.df, steps=50, norm=2),
                                           "foolbox": by_foolbox(fb.L2DeepFoolAttack(steps=50))}),
        ("deepfool", "linf", {"steps": 50}, {"adv-lib": adv_lib(al.df, steps=50, norm=float("inf")),
                                             "foolbox": by_foolbox(fb.LinfDeepFoolAttack(steps=50))}),
        ("superdeepfool", "l2", {"rounds": steps // 5}, {"adv-lib": adv_lib(al.sdf, steps=steps // 5)}),
        ("newtonfool", "l2", {"steps": 100}, {"foolbox": by_foolbox(fb.NewtonFoolAttack(steps=100))}),
        ("carlini-wagner-l2", "l2", {**search, "learning_rate": 0.05}, {
            "foolbox": by_foolbox(fb.L2CarliniWagnerAttack(binary_search_steps=5, steps=steps // 5, stepsize=0.05, initial_const=1.0,
                                                                   abort_early=False)),
            "adv-lib": adv_lib(al.carlini_wagner_l2, binary_search_steps=5, max_iterations=steps // 5, learning_rate=0.05,
                               initial_const=1.0, abort_early=False)}),
        ("ead", "l1", {**search, "step_size": 0.05, "l1_weight": 0.01}, {
            "foolbox": by_foolbox(fb.EADAttack(binary_search_steps=5, steps=steps // 5, initial_stepsize=0.05, initial_const=1.0,
                                               decision_rule="L1", regularization=0.01, abort_early=False))}),
        ("box-lbfgs", "l2", {"steps": steps // 5}, {}),
        # Its schedules are made for 1000 steps, at which the bar was measured.
        ("sigma-zero", "l0", {"steps": 5 * steps}, {"adv-lib": adv_lib(al.sigma_zero, num_steps=5 * steps)}),
        ("jsma", "l0", {"greatest_fraction": 1.0}, {}),
        ("carlini-wagner-l0", "l0", {"steps": tenth}, {}),
        ("carlini-wagner-linf", "linf", {"steps": tenth}, {
            "adv-lib": adv_lib(al.carlini_wagner_linf, max_iterations=tenth, learning_rate=0.005)}),
    ]
    return found


def decisions(queries, classes):
    """The same of attacks that see decisions; their peers are run sample by sample and stopped after as many queries."""
    fb, ev = foolbox.attacks, art.attacks.evasion
    return [
        ("boundary", "l2", {"queries": queries}, {"foolbox": by_foolbox(fb.BoundaryAttack(steps=queries))}),
        ("hop-skip-jump", "l2", {"queries": queries}, {"foolbox": by_foolbox(fb.HopSkipJumpAttack(constraint="l2"))}),
        ("hop-skip-jump", "linf", {"queries": queries}, {"foolbox": by_foolbox(fb.HopSkipJumpAttack(constraint="linf"))}),
        ("sign-opt", "l2", {"queries": queries}, {
            "art": by_art(lambda c: ev.SignOPTAttack(c, targeted=False, query_limit=queries, verbose=False))} if classes > 2 else {}),
        ("geoda", "l2", {"queries": queries}, {
            "art": by_art(lambda c: ev.GeoDA(c, norm=2, max_iter=queries, verbose=False))}),
        ("geoda", "linf", {"queries": queries}, {
            "art": by_art(lambda c: ev.GeoDA(c, norm=np.inf, max_iter=queries, verbose=False))}),
        ("surfree", "l2", {"queries": queries}, {}),
        ("rays", "linf", {"queries": queries}, {}),
    ]


def budgeted(classes):
    """(attack, norm, nocebo's settings, {peer: run at an epsilon in [0, 1] for each sample}) of attacks with a budget."""
    found = [
        ("pgd", "linf", {"steps": 40, "relative_step_size": 1 / 30}, {"adv-lib": lambda e: adv_lib(al.pgd_linf, ε=e)}),
        *[("apgd", norm, {}, {"adv-lib": lambda e, p=ORDER[norm]: adv_lib(al.apgd, eps=e, norm=p, n_iter=100, loss_function="ce")})
          for norm in ("linf", "l2", "l1")],
        ("fgsm", "linf", {}, {}),
        ("mi-fgsm", "linf", {}, {}),
    ]
    if classes > 3:
        targets = min(9, classes - 1)
        found.append(("apgd-t", "linf", {}, {"adv-lib": lambda e: adv_lib(
            al.apgd_targeted, eps=e, norm=ORDER["linf"], n_iter=100, num_targets=targets)}))
    return found


# Every other attack, and these again, at one budget; what learns long comes last. Without a norm: no limit but the bounds, what
# these do is bounded by their own settings.
CATALOGUE = [
    ("linf", [
        ("fgsm", {}), ("one-step-target", {}), ("r-fgsm", {}), ("bim", {}), ("illc", {}), ("pgd", {}), ("apgd", {}),
        ("low-frequency", {}), ("vafa", {}), ("square", {"queries": 1000}), ("nes", {"queries": 1000}), ("simba", {"queries": 1000}),
        ("spsa", {"steps": 10}), ("bandits", {"queries": 1000}), ("rays", {"queries": 1000}), ("hop-skip-jump", {"queries": 1000}),
        ("mi-fgsm", {}), ("ni-fgsm", {}), ("si-ni-fgsm", {}), ("emi-fgsm", {}), ("transformed-gradient", {}), ("di-fgsm", {}),
        ("ti-fgsm", {}), ("vmi-fgsm", {}), ("ensemble-attack", {}), ("masked-patch", {"steps": 50}), ("rp2", {"steps": 30, "draws": 3}),
        ("adv-cam", {"steps": 50}), ("robust-momentum", {}), ("eot", {"draws": 4}),
    ]),
    ("l2", [
        ("fgv", {}), ("hot-cold", {}), ("finefool", {}), ("pgd", {}), ("apgd", {}), ("boundary", {"queries": 1000}),
        ("square", {"queries": 1000}), ("simba", {"queries": 1000}), ("nes", {"queries": 1000}), ("bandits", {"queries": 1000}),
        ("zoo", {"queries": 10000}),
    ]),
    ("l1", [("pgd", {}), ("apgd", {}), ("square", {"queries": 1000})]),
    ("l0", [("pgd", {}), ("fgsm", {}), ("one-pixel", {"population": 60, "generations": 15}), ("local-search", {"queries": 1000})]),
    (None, [("st-adv", {"steps": 50}), ("affine", {}), ("deformation", {})]),
    ("linf", [
        ("medical-uap", {"batch": 16}), ("sgd-uap", {}), ("uap", {"passes": 2}), ("upset", {}), ("admix", {}), ("substitute", {}),
        ("atn", {}), ("angri", {}), ("gap", {}), ("advgan", {}),
    ]),
    (None, [("patch", {"steps": 100}), ("natural-gan", {})]),
]


class Table:
    """The runs on one network, kept one file each."""

    def __init__(self, name, arguments, end):
        self.folder = ROOT / "target/attack-quality"
        self.arguments, self.name, self.end = arguments, name, end
        self.model, data = network(name, self.folder)
        self.count = max(int(arguments.samples * NETWORKS[name][2]), 4)
        self.data, self.x, self.y = samples(self.model, data, self.count, self.folder)
        self.network = Scaled(self.model)
        self.classes = self.network(self.x[:1]).shape[1]
        self.program = hashlib.sha256(Path(PROGRAM).read_bytes() + self.model.read_bytes()).hexdigest()
        self.complete = True

    def kept(self, key, run):
        """The result of `run`, computed once. `key` names all that it depends on."""
        digest = hashlib.sha256(json.dumps([self.name, self.count, *key]).encode()).hexdigest()[:20]
        path = self.folder / "runs" / f"{self.name}-{key[0]}-{digest}.json"
        if not path.exists():
            if time.time() > self.end:
                self.complete = False
                return None
            start = time.time()
            torch.manual_seed(1)
            np.random.seed(1)
            result = run()
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(result | {"seconds": round(time.time() - start, 1)}))
            print(f"  {self.name} {' '.join(map(str, key[:3]))}: {time.time() - start:.1f} s", file=sys.stderr, flush=True)
        return json.loads(path.read_text())

    def ours(self, title, norm, settings):
        def run():
            success, distance, passes = attack(self.model, self.data, title, settings, norm)
            return result(np.where(success, distance, np.inf), passes.mean())

        return self.kept([title, norm, "nocebo", settings, self.program], run)

    def theirs(self, title, norm, peer, run, settings):
        def whole():
            most = settings.get("queries", np.inf)
            groups = [list(range(self.count))] if np.isinf(most) else [[row] for row in range(self.count)]
            distances, passes = [], 0
            for rows in groups:
                found, used = self.peer(rows, norm, run, most)
                distances.extend(found)
                passes += used
            return result(np.array(distances), passes / self.count)

        return self.kept([title, norm, peer, settings, importlib.metadata.version(PACKAGES[peer])], whole)

    def peer(self, rows, norm, run, most=float("inf")):
        x, y = self.x[rows], self.y[rows]
        watched = Nearest(self.network, x, y, norm, most)
        try:
            points = run(watched, x.clone(), y)
            with torch.no_grad():
                watched.look(points.detach(), self.network(points.detach()))
        except OutOfQueries:
            pass
        except Exception as error:  # a peer that breaks is told; what it had found counts
            print(f"  {type(error).__name__} in the peer: {error}", file=sys.stderr)
        return watched.distances, watched.passes

    def bisected(self, title, norm, who, version, settings, run, rungs):
        """Distance of each sample at the least rung of `rungs` at which `run(rows, epsilons)` fells it, by bisection."""
        def whole():
            # Between a rung that fails, or none, and one that succeeds, or none.
            low, high = np.full(self.count, -1), np.full(self.count, len(rungs))
            distances, passes = np.full(self.count, np.inf), 0
            while len(rows := np.flatnonzero(high - low > 1)):
                middle = (low[rows] + high[rows]) // 2
                found, used = run(rows, rungs[middle])
                passes += used
                fell = found <= rungs[middle] * (1 + 1e-5)
                low[rows], high[rows] = np.where(fell, low[rows], middle), np.where(fell, middle, high[rows])
                distances[rows] = np.minimum(distances[rows], np.where(fell, found, np.inf))
            return result(distances, passes / self.count)

        return self.kept([title, norm, who, settings, version, list(rungs)], whole)

    def own_at(self, title, norm, settings):
        def run(rows, epsilons):
            distances, passes = np.empty(len(rows)), 0
            for epsilon in set(epsilons):
                places = np.flatnonzero(epsilons == epsilon)
                with tempfile.TemporaryDirectory() as folder:
                    part = subset_of(self.data, rows[places], Path(folder))
                    success, distance, used = attack(self.model, part, title, settings, norm, epsilon)
                distances[places] = np.where(success, distance, np.inf)
                passes += used.sum()
            return distances, passes

        return run

    def runs(self):
        """{norm: {(attack, who): result}} of the minimum-norm attacks and the bisected ones."""
        found = {norm: {} for norm in ORDER}

        def compare(attacks):
            for title, norm, settings, others in attacks:
                found[norm][title, "nocebo"] = self.ours(title, norm, settings)
                for peer, run in others.items():
                    found[norm][title, peer] = self.theirs(title, norm, peer, run, settings)

        compare(minimum_norm(self.arguments.steps, self.classes))
        if not self.complete:
            return {norm: done(of_norm) for norm, of_norm in found.items()}
        rungs = {}
        for norm in ORDER:
            best = nearest(done(found[norm]))
            low, high = 0.8 * best.min(), 1.6 * best.max()
            # Budgets that do not move with every run: powers of RUNG.
            rungs[norm] = RUNG ** np.arange(np.floor(np.log(low) / np.log(RUNG)), np.ceil(np.log(high) / np.log(RUNG)) + 1)
        for title, norm, settings, others in budgeted(self.classes):
            found[norm][title, "nocebo"] = self.bisected(
                title, norm, "nocebo", self.program, settings, self.own_at(title, norm, settings), rungs[norm])
            for peer, make in others.items():
                found[norm][title, peer] = self.bisected(
                    title, norm, peer, importlib.metadata.version(PACKAGES[peer]), settings,
                    lambda rows, epsilons, make=make: self.peer(rows, norm, make(torch.tensor(epsilons / 255).float())), rungs[norm])
        compare(decisions(self.arguments.queries, self.classes))
        return {norm: done(of_norm) for norm, of_norm in found.items()}

    def catalogue(self, budgets):
        """{(attack, threat): (success, median distance of the successes)} of nocebo's attacks at one budget a norm."""
        found = {}
        for norm, attacks in CATALOGUE:
            threat = f"{norm}:{budgets[norm]}" if norm else "l2:inf"
            for title, settings in attacks:
                def run():
                    out = self.folder / f"{self.name}-audit"
                    shutil.rmtree(out, ignore_errors=True)
                    try:
                        nocebo("audit", "--model", self.model, "--data", self.data, "--attacks", spelled(title, settings),
                               "--threat", threat, "--seed", 1, "--include-images", 0, "--out", out)
                    except RuntimeError as error:
                        print(error, file=sys.stderr)
                        return {"success": None, "median": None}
                    cell = json.loads((out / "audit.json").read_text())["threats"][0]["cells"][0]
                    shutil.rmtree(out)
                    return {"success": cell["attack_success_rate"]["value"],
                            "median": cell["perturbation"]["median"] if cell["perturbation"] else None}

                found[title, threat] = self.kept([title, threat, "nocebo at a budget", settings, self.program], run)
        return done(found)


def done(runs):
    """Those that were computed before the time was over."""
    return {name: run for name, run in runs.items() if run}


def result(distances, passes):
    return {"distances": [None if np.isinf(distance) else float(distance) for distance in distances], "passes": float(passes)}


def lengths(run):
    return np.array([np.inf if distance is None else distance for distance in run["distances"]])


def nearest(runs):
    return np.min([lengths(run) for run in runs.values()], axis=0)


def optimality(runs):
    """Local optimality of each run of one norm."""
    best = nearest(runs)
    reach = best[np.isfinite(best)].max()

    def area(distances):
        return np.minimum(distances, reach).mean()

    return {name: 1 - (area(lengths(run)) - area(best)) / (reach - area(best)) for name, run in runs.items()}


def number(value, digits=2):
    return "" if value is None else f"{value:.{digits}f}"


def markdown(table):
    """The tables of the documents."""
    names = list(table["networks"])
    lines = ["| attack, norm | " + " | ".join(f"{name}: optimality, median" for name in names) + " | best peer |",
             "|---|" + "---|" * (len(names) + 1)]
    rows = {}
    for name in names:
        for row in table["networks"][name]["optimality"]:
            rows.setdefault((row["norm"], row["attack"]), {}).setdefault(name, {})[row["who"]] = row
    for (norm, title), by_name in rows.items():
        cells, rivals = [], []
        for name in names:
            runs = by_name.get(name, {})
            own = runs.get("nocebo")
            cells.append(f"{own['optimality']:.3f}, {number(own['median'])}" + (f" ({own['fell']:.2f} fell)" if own["fell"] < 1 else "")
                         if own else "")
            others = [row for who, row in runs.items() if who != "nocebo"]
            if others:
                best = max(others, key=lambda row: row["optimality"])
                rivals.append(f"{best['optimality']:.3f} {best['who']}")
            elif own:
                rivals.append("none")
        lines.append(f"| {title}, {norm} | " + " | ".join(cells) + f" | {', '.join(rivals) if set(rivals) != {'none'} else ''} |")
    lines += ["", "| attack at a budget | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    norms = {}
    for name in names:
        for row in table["networks"][name]["catalogue"]:
            norms.setdefault((row["threat"].split(":")[0] if "inf" not in row["threat"].split(":")[1] else "no norm", row["attack"]),
                             {})[name] = row
    budgets = {norm: " / ".join(str(table["networks"][name]["budgets"][norm]) for name in names) for norm in ORDER}
    for (norm, title), by_name in norms.items():
        lines.append(f"| {title}, {norm}" + (f":{budgets[norm]}" if norm in budgets else "") + " | "
                     + " | ".join(number(by_name[name]["success"]) if name in by_name else "" for name in names) + " |")
    return "\n".join(lines)


def main():
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--queries", type=int, default=500, help="of attacks that see decisions")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--no-catalogue", action="store_true")
    parser.add_argument("--seconds", type=float, default=0, help="stop after that long; 0 for never")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/attack_quality.json")
    arguments = parser.parse_args()
    table, misses, complete = {}, [], True
    end = time.time() + arguments.seconds if arguments.seconds else np.inf
    for name in arguments.networks:
        runs_of = Table(name, arguments, end)
        runs = runs_of.runs()
        rows, budgets = [], {}
        if not all(runs.values()):
            complete = False
            break
        for norm, of_norm in runs.items():
            scores = optimality(of_norm)
            for (title, who), score in scores.items():
                distances = lengths(of_norm[title, who])
                median = float(np.median(distances))
                rows.append({"attack": title, "norm": norm, "who": who, "fell": float(np.isfinite(distances).mean()),
                             "median": median if np.isfinite(median) else None, "optimality": float(score),
                             "passes": of_norm[title, who]["passes"], "seconds": of_norm[title, who]["seconds"]})
                if who != "nocebo":
                    continue
                rivals = [other for (same, peer), other in scores.items() if same == title and peer != "nocebo"]
                if score < BARS.get((title, norm), -np.inf):
                    misses.append(f"{name} {title} {norm}: {score:.3f}, below {BARS[title, norm]}")
                if rivals and score < max(rivals) - SLACK:
                    misses.append(f"{name} {title} {norm}: {score:.3f}, best peer {max(rivals):.3f}")
            # Within reach of the best for about three quarters of the samples.
            budget = float(np.quantile(nearest(of_norm), 0.75))
            budgets[norm] = int(np.ceil(budget)) if norm == "l0" else float(f"{budget:.2g}")
        found = {} if arguments.no_catalogue else runs_of.catalogue(budgets)
        complete &= runs_of.complete
        table[name] = {
            "optimality": rows, "budgets": budgets,
            "catalogue": [{"attack": title, "threat": threat, "success": cell["success"], "median": cell["median"]}
                          for (title, threat), cell in found.items()],
        }
    versions = {peer: importlib.metadata.version(package) for peer, package in PACKAGES.items()}
    whole = {"samples": arguments.samples, "steps": arguments.steps, "queries": arguments.queries, "versions": versions,
             "networks": table}
    arguments.out.write_text(json.dumps(whole, indent=1) + "\n")
    print(markdown(whole))
    for miss in misses:
        print("MISSED", miss)
    sys.exit(1 if misses else 0 if complete else 4)


if __name__ == "__main__":
    main()
