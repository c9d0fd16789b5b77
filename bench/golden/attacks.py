"""Golden vectors for attacks that need no chance: the path of each peer on one small network, point by point.

    bench/setup.sh && bench/.venv/bin/python bench/golden/attacks.py

Writes crates/attacks/tests/golden/attacks.toml (for each entry the peer, its version, all parameters, and what is compared
with what tolerance) and attacks.safetensors (the network, the clean samples, the points that each peer asked the network
about, its results). Every sample is attacked alone, so no sample's path depends on its neighbours.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

import sys

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from peers import LogOdds, Recorded  # noqa: E402

import adv_lib.attacks  # noqa: E402
import art  # noqa: E402
import art.attacks.evasion  # noqa: E402
import art.estimators.classification  # noqa: E402
import foolbox  # noqa: E402
import importlib.metadata  # noqa: E402
import torchattacks  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "crates/attacks/tests/golden"
SEED, SAMPLES, SHAPE, HIDDEN, CLASSES = 20261125, 6, (3, 3, 3), 32, 4
POINTS = 16
INFINITY = float("inf")
EPSILON, STEP = 0.1, 0.0125
EPSILON_L2, STEP_L2 = 0.4, 0.05


def foolbox_run(attack, epsilon=None):
    def run(network, x, label, target):
        model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
        if epsilon is None:
            return attack.run(model, x, foolbox.criteria.Misclassification(label))
        return attack.run(model, x, foolbox.criteria.Misclassification(label), epsilon=epsilon)

    return run


def torchattacks_run(make, log_odds=False, targeted=False, least_likely=False):
    def run(network, x, label, target):
        target = network.network(x).argmin(1) if least_likely else target
        loss = torch.nn.CrossEntropyLoss
        torch.nn.CrossEntropyLoss = LogOdds if log_odds else loss
        try:
            attack = make(network)
            if targeted or least_likely:
                attack.set_mode_targeted_by_label(quiet=True)
            return attack(x.clone(), target if targeted or least_likely else label)
        finally:
            torch.nn.CrossEntropyLoss = loss

    return run


def adv_lib_run(attack, **parameters):
    return lambda network, x, label, target: attack(network, x.clone(), label, **parameters)


def art_run(make):
    def run(network, x, label, target):
        network = torch.nn.Sequential(network, torch.nn.Softmax(1))
        classifier = art.estimators.classification.PyTorchClassifier(
            model=network, loss=torch.nn.CrossEntropyLoss(), input_shape=SHAPE, nb_classes=CLASSES, clip_values=(0, 1)
        )
        return torch.from_numpy(make(classifier).generate(x.numpy(), np.eye(CLASSES, dtype=np.float32)[label]))

    return run


FB, TA, AL, ART = "foolbox", "torchattacks", "adv-lib", "adversarial-robustness-toolbox"
fb = foolbox.attacks
CLIP = "the peer projects onto the ball and then clips to the bounds; nocebo projects onto both at once"
RESCALED = "the peer's L2 projection also lengthens a short change to epsilon; nocebo's leaves it"
UNPROJECTED = "the peer's L2 projection divides a norm by itself and so projects nothing"
SMALLER = "nocebo's L2/3 proximal operator gives 0 where that is better than the other stationary point"
GROWTH = "before a first success the radius of nocebo grows by at least 1e-4"
STOPS = "nocebo stops at the first point that reaches the goal"

# name, peer, its call, how to run it, nocebo's attack, settings, norm, epsilon (None for none), what is compared with what
# tolerance, differences. "path": the points asked about, up to the end of the shorter path; "result": the perturbed input;
# "distance": that of the result; "nearer": the same, where nocebo may be nearer.
ENTRIES = [
    ("fgm_l2", FB, f"L2FastGradientAttack(random_start=False), epsilon={EPSILON_L2}",
     foolbox_run(fb.L2FastGradientAttack(random_start=False), EPSILON_L2), "fgsm", {}, "l2", EPSILON_L2, ("result", 1e-5), []),
    ("one_step_target", TA, f"FGSM(eps={EPSILON}), targeted at the least likely class",
     torchattacks_run(lambda n: torchattacks.FGSM(n, eps=EPSILON), least_likely=True),
     "one-step-target", {"target_class": "least_likely"}, "linf", EPSILON, ("result", 1e-6), []),
    ("illc", TA, f"BIM(eps={EPSILON}, alpha={STEP}, steps=12), targeted at the least likely class",
     torchattacks_run(lambda n: torchattacks.BIM(n, eps=EPSILON, alpha=STEP, steps=12), least_likely=True),
     "illc", {"step_fraction": STEP, "steps": 12}, "linf", EPSILON, ("path", 1e-5), [STOPS]),
    ("bim", TA, f"BIM(eps={EPSILON}, alpha={STEP}, steps=12)",
     torchattacks_run(lambda n: torchattacks.BIM(n, eps=EPSILON, alpha=STEP, steps=12)),
     "bim", {"step_fraction": STEP, "steps": 12}, "linf", EPSILON, ("path", 1e-5), [STOPS]),
    ("pgd_l2", TA, f"PGDL2(eps={EPSILON_L2}, alpha={STEP_L2}, steps=12, random_start=False)",
     torchattacks_run(lambda n: torchattacks.PGDL2(n, eps=EPSILON_L2, alpha=STEP_L2, steps=12, random_start=False)),
     "pgd", {"random_start": False, "relative_step_size": STEP_L2 / EPSILON_L2, "steps": 12}, "l2", EPSILON_L2,
     ("path", 1e-4), [STOPS, CLIP]),
    ("mi_fgsm", TA, f"MIFGSM(eps={EPSILON}, alpha={STEP}, steps=12, decay=0.9)",
     torchattacks_run(lambda n: torchattacks.MIFGSM(n, eps=EPSILON, alpha=STEP, steps=12, decay=0.9)),
     "mi-fgsm", {"relative_step_size": STEP / EPSILON, "steps": 12, "decay": 0.9}, "linf", EPSILON, ("path", 1e-5), []),
    ("ni_fgsm", TA, f"NIFGSM(eps={EPSILON}, alpha={STEP}, steps=12, decay=0.9)",
     torchattacks_run(lambda n: torchattacks.NIFGSM(n, eps=EPSILON, alpha=STEP, steps=12, decay=0.9)),
     "ni-fgsm", {"relative_step_size": STEP / EPSILON, "steps": 12, "decay": 0.9}, "linf", EPSILON, ("path", 1e-5), []),
    ("si_ni_fgsm", TA, f"SINIFGSM(eps={EPSILON}, alpha={STEP}, steps=6, decay=0.9, m=3), loss replaced by the log-odds",
     torchattacks_run(lambda n: torchattacks.SINIFGSM(n, eps=EPSILON, alpha=STEP, steps=6, decay=0.9, m=3), log_odds=True),
     "si-ni-fgsm", {"relative_step_size": STEP / EPSILON, "steps": 6, "decay": 0.9, "scales": 3}, "linf", EPSILON,
     ("path", 1e-5), ["nocebo's cross-entropy is the log-odds, which weighs the copies differently"]),
    ("di_fgsm", TA, f"DIFGSM(eps={EPSILON}, alpha={STEP}, steps=12, decay=0.9, diversity_prob=0, random_start=False)",
     torchattacks_run(lambda n: torchattacks.DIFGSM(n, eps=EPSILON, alpha=STEP, steps=12, decay=0.9, diversity_prob=0.0,
                                                    random_start=False)),
     "di-fgsm", {"relative_step_size": STEP / EPSILON, "steps": 12, "decay": 0.9, "probability": 0.0}, "linf", EPSILON,
     ("path", 1e-5), ["without the random resizing, which is drawn otherwise"]),
    ("ti_fgsm", TA, f"TIFGSM(eps={EPSILON}, alpha={STEP}, steps=12, decay=0.9, kernel gaussian, len_kernel=3, nsig=3, "
     "diversity_prob=0, random_start=False)",
     torchattacks_run(lambda n: torchattacks.TIFGSM(n, eps=EPSILON, alpha=STEP, steps=12, decay=0.9, len_kernel=3,
                                                    diversity_prob=0.0, random_start=False)),
     "ti-fgsm", {"relative_step_size": STEP / EPSILON, "steps": 12, "decay": 0.9, "kernel_size": 3}, "linf", EPSILON,
     ("path", 1e-5), []),
    ("deep_fool_l2", FB, "L2DeepFoolAttack(steps=50, candidates=4, overshoot=0.02, loss=logits)",
     foolbox_run(fb.L2DeepFoolAttack(steps=50, candidates=4, overshoot=0.02)),
     "deepfool", {"candidates": 3, "extra_step": 1e-4}, "l2", None, ("path", 1e-4), []),
    ("deep_fool_linf", FB, "LinfDeepFoolAttack(steps=50, candidates=4, overshoot=0.02, loss=logits)",
     foolbox_run(fb.LinfDeepFoolAttack(steps=50, candidates=4, overshoot=0.02)),
     "deepfool", {"candidates": 3, "extra_step": 1e-4}, "linf", None, ("path", 1e-4), []),
    ("deep_fool_adv_lib", AL, "df(steps=100, overshoot=0.02, norm=2)",
     adv_lib_run(adv_lib.attacks.df, steps=100, overshoot=0.02, norm=2),
     "deepfool", {"candidates": 3, "extra_step": 1e-4, "steps": 100}, "l2", None, ("path", 1e-4), []),
    ("super_deep_fool", AL, "sdf(steps=100, df_steps=100, overshoot=0.02, search_iter=10)",
     adv_lib_run(adv_lib.attacks.sdf, steps=100, df_steps=100, overshoot=0.02, search_iter=10),
     "superdeepfool", {"deep_fool": {"steps": 100, "overshoot": 0.02, "extra_step": 1e-4, "candidates": 3}}, "l2", None,
     ("distance", 0.06), ["from the second round on the peer adds the foot of the normal to the last point; nocebo, as the paper, "
                          "to the clean one", "nocebo returns the nearest of all points on the way that reach the goal"]),
    ("newton_fool", ART, "NewtonFool(max_iter=40, eta=0.01, batch_size=1) of the softmax",
     art_run(lambda c: art.attacks.evasion.NewtonFool(c, max_iter=40, eta=0.01, batch_size=1, verbose=False)),
     "newtonfool", {"eta": 0.01, "steps": 40}, "l2", None, ("path", 1e-4), [STOPS]),
    ("saliency_map", TA, "JSMA(theta=1.0, gamma=0.6), targeted",
     torchattacks_run(lambda n: torchattacks.JSMA(n, theta=1.0, gamma=0.6), targeted=True),
     "jsma", {"theta": 1.0, "greatest_fraction": 0.6, "scores": "logits"}, "l0", None, ("path", 1e-5), []),
    ("carlini_wagner_l2", FB, "L2CarliniWagnerAttack(binary_search_steps=4, steps=60, stepsize=0.02, confidence=0, "
     "initial_const=0.5, abort_early=False)",
     foolbox_run(fb.L2CarliniWagnerAttack(binary_search_steps=4, steps=60, stepsize=0.02, confidence=0, initial_const=0.5,
                                          abort_early=False)),
     "carlini-wagner-l2", {"search_steps": 4, "steps": 60, "learning_rate": 0.02, "initial_constant": 0.5,
                           "abort_early": False}, "l2", None, ("distance", 0.02), []),
    ("elastic_net", FB, "EADAttack(binary_search_steps=4, steps=100, initial_stepsize=0.02, confidence=0, initial_const=0.5, "
     "regularization=0.01, decision_rule=L1, abort_early=False)",
     foolbox_run(fb.EADAttack(binary_search_steps=4, steps=100, initial_stepsize=0.02, confidence=0, initial_const=0.5,
                              regularization=0.01, decision_rule="L1", abort_early=False)),
     "ead", {"search_steps": 4, "steps": 100, "step_size": 0.02, "initial_constant": 0.5, "l1_weight": 0.01,
             "decision_rule": "l1", "abort_early": False}, "l1", None, ("nearer", 1e-3), ["nocebo clips y to the bounds"]),
    ("carlini_wagner_linf", AL, "carlini_wagner_linf(learning_rate=0.01, max_iterations=60, initial_const=0.05, largest_const=20, "
     "const_factor=2, decrease_factor=0.9, abort_early=True)",
     adv_lib_run(adv_lib.attacks.carlini_wagner_linf, learning_rate=0.01, max_iterations=60, initial_const=0.05),
     "carlini-wagner-linf", {"learning_rate": 0.01, "steps": 60, "initial_constant": 0.05}, "linf", None, ("path", 1e-3), []),
    ("ddn", FB, "DDNAttack(init_epsilon=1, steps=40, gamma=0.05)",
     foolbox_run(fb.DDNAttack(init_epsilon=1.0, steps=40, gamma=0.05)),
     "ddn", {"steps": 40, "quantise": False}, "l2", None, ("path", 1e-3), []),
    ("ddn_adv_lib", AL, "ddn(steps=40, γ=0.05, init_norm=1, levels=None)",
     adv_lib_run(adv_lib.attacks.ddn, steps=40, γ=0.05, init_norm=1.0, levels=None),
     "ddn", {"steps": 40, "quantise": False}, "l2", None, ("path", 1e-3), []),
    *[(f"fmn_{name}", FB, f"{attack.__name__}(steps=40, max_stepsize=1, min_stepsize=0.01, gamma=0.05)",
       foolbox_run(attack(steps=40, max_stepsize=1.0, min_stepsize=0.01, gamma=0.05)),
       "fmn", {"steps": 40}, name, None, ("nearer" if name == "l2" else "distance", 0.1),
       [CLIP, GROWTH] + ([UNPROJECTED] if name == "l2" else []))
      for name, attack in [("l0", fb.L0FMNAttack), ("l1", fb.L1FMNAttack), ("l2", fb.L2FMNAttack), ("linf", fb.LInfFMNAttack)]],
    *[(f"fmn_adv_lib_{name}", AL, f"fmn(norm={norm}, steps=40, α_init=1, γ_init=0.05, γ_final=0.001)",
       adv_lib_run(adv_lib.attacks.fmn, norm=norm, steps=40), "fmn", {"steps": 40}, name, None,
       ("path", 1e-3) if name in ("l0", "linf") else ("nearer", 0.1), [CLIP, GROWTH] + ([RESCALED] if name == "l2" else []))
      for name, norm in [("l0", 0), ("l1", 1), ("l2", 2), ("linf", INFINITY)]],
    *[(f"alma_{name}", AL, f"alma(distance={name}, init_lr_distance={first}, num_steps=60, penalty=P2, α=0.9)",
       adv_lib_run(adv_lib.attacks.alma, distance=name, init_lr_distance=first, num_steps=60,
                   penalty=adv_lib.attacks.augmented_lagrangian.all_penalties["P2"], α=0.9),
       "alma", {"steps": 60, f"first_step_{name}": first}, name, None, ("path", 1e-3), [])
      for name, first in [("l1", 0.5), ("l2", 0.1)]],
    *[(f"pdpgd_{name}", AL, f"pdpgd(norm={norm}, num_steps=60{', proximal_operator=23' if norm == 0 else ''})",
       adv_lib_run(adv_lib.attacks.pdpgd, norm=norm, num_steps=60, proximal_operator=23 if norm == 0 else None),
       "pdpgd", {"steps": 60}, name, None, ("path", 1e-3 if norm else 0.06), [] if norm else [SMALLER])
      for name, norm in [("l0", 0), ("l1", 1), ("l2", 2), ("linf", INFINITY)]],
    *[(f"fab_{name}", AL, f"fab(norm={norm}, n_iter=20, α_max=0.1, β=0.9, η=1.05)",
       adv_lib_run(adv_lib.attacks.fab, norm=norm, n_iter=20), "fab", {"steps": 20}, name, None, ("path", 1e-3), [])
      for name, norm in [("l1", 1), ("l2", 2), ("linf", INFINITY)]],
    *[(f"fab_t_{name}", AL, f"fab(norm={norm}, n_iter=20, targeted_restarts=True, restarts=3, α_max=0.1, β=0.9, η=1.05)",
       adv_lib_run(adv_lib.attacks.fab, norm=norm, n_iter=20, targeted_restarts=True, restarts=3),
       "fab-t", {"target_classes": 3, "fab": {"steps": 20}}, name, None, ("path", 1e-3), [])
      for name, norm in [("l1", 1), ("l2", 2), ("linf", INFINITY)]],
    ("sigma_zero", AL, "sigma_zero(num_steps=60, η_0=1, σ=0.001, τ_0=0.3, τ_factor=0.01, grad_norm=inf)",
     adv_lib_run(adv_lib.attacks.sigma_zero, num_steps=60), "sigma-zero", {"steps": 60}, "l0", None, ("path", 1e-3), []),
]


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(float(value)) if isinstance(value, float) else f'"{value}"' if isinstance(value, str) else str(value)


def main():
    warnings.simplefilter("ignore")
    torch.manual_seed(SEED)
    features = int(np.prod(SHAPE))
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(features, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, CLASSES)
    ).eval()
    for parameter in network.parameters():
        parameter.data *= 3
    candidates = 0.25 + 0.5 * torch.rand(200, *SHAPE)
    two = network(candidates).topk(2).values.detach()
    # Samples that are neither at the boundary nor out of reach.
    clean = candidates[(two[:, 0] - two[:, 1] > 0.3).nonzero()[:, 0]][:SAMPLES]
    labels = network(clean).argmax(1)
    targets = network(clean).topk(2).indices[:, 1]
    for parameter in network.parameters():
        parameter.requires_grad_(False)

    arrays = {
        "clean": clean.flatten(1), "labels": labels, "targets": targets,
        "hidden.weight": network[1].weight, "hidden.bias": network[1].bias,
        "head.weight": network[3].weight, "head.bias": network[3].bias,
    }
    text = f"""# Made by bench/golden/attacks.py. Bounds [0, 1]; loss of the peers as they are; see each entry for the rest.
script = "bench/golden/attacks.py"
seed = {SEED}
torch = "{torch.__version__.split('+')[0]}"
shape = {list(SHAPE)}
points = {POINTS}
"""
    for name, peer, call, run, attack, settings, norm, epsilon, (compare, tolerance), differences in ENTRIES:
        paths, counts, results = torch.zeros(SAMPLES, POINTS, features), torch.zeros(SAMPLES, dtype=torch.int64), []
        for row in range(SAMPLES):
            torch.manual_seed(SEED)
            recorded = Recorded(network)
            x = clean[row : row + 1]
            results.append(run(recorded, x, labels[row : row + 1], targets[row : row + 1]).detach().flatten())
            points = [point.flatten() for batch in recorded.points for point in batch][:POINTS]
            counts[row] = len(points)
            paths[row, : len(points)] = torch.stack(points)
        results = torch.stack(results)
        if compare == "path":
            arrays[f"{name}.points"], arrays[f"{name}.counts"] = paths, counts
        arrays[f"{name}.results"] = results
        fooled = int((network(results).argmax(1) != labels).sum())
        print(f"{name}: {fooled} of {SAMPLES} fooled, points {counts.tolist()}")
        text += f"""
[[entry]]
name = "{name}"
peer = "{peer} {importlib.metadata.version(peer)}"
call = "{call}"
attack = "{attack}"
settings = {toml(settings)}
norm = "{norm}"
epsilon = {toml(float(epsilon)) if epsilon else "inf"}
targeted = {str(name == "saliency_map").lower()}
compare = "{compare}"
tolerance = {tolerance}
"""
        text += "".join(f"# DIFFERENCE: {difference}.\n" for difference in differences)
    arrays = {name: np.ascontiguousarray(array.detach().numpy()) for name, array in arrays.items()}
    save_file(arrays, FOLDER / "attacks.safetensors")
    (FOLDER / "attacks.toml").write_text(text)


if __name__ == "__main__":
    main()
