"""Writes docs/attacks.md and its pictures: every attack of the catalogue, one picture a family, and the tables of attack_quality.py.

    bench/setup.sh && cargo build --release -p nocebo-cli
    bench/.venv/bin/python bench/docs.py

The pictures: a chest X-ray phantom of `nocebo demo` (kept in target/docs), what an attack changed, amplified, and the result. The
tables come from bench/attack_quality.json.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from attack_quality import markdown
from ours import ROOT, nocebo, spelled

DOCS = ROOT / "docs"
DEMO = ROOT / "target/docs/demo"
SCALE = 5
# Family: the attack that stands for it, its settings, threat.
PICTURES = {
    "control": ("noise", {}, "linf:8"),
    "gradient": ("pgd", {}, "linf:8"),
    "frequency": ("low-frequency", {}, "linf:8"),
    "minimum_norm": ("ddn", {"steps": 300}, "l2:inf"),
    "score": ("square", {"queries": 2000}, "linf:8"),
    "decision": ("hop-skip-jump", {"queries": 2000}, "l2:inf"),
    "transfer": ("mi-fgsm", {}, "linf:8"),
    "spatial": ("deformation", {}, "l2:inf"),
    "physical": ("masked-patch", {"steps": 100}, "linf:64"),
    "universal": ("medical-uap", {"batch": 4}, "linf:16"),
    "generative": ("gap", {}, "linf:16"),
}


def picture(family, attack, settings, threat):
    """Clean, amplified change and result side by side; returns a caption."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        nocebo("attack", "--model", DEMO / "plain.onnx", "--data", DEMO / "phantoms.npz", "--attack", spelled(attack, settings),
               "--threat", threat, "--samples", 12, "--seed", 1, "--out", out)
        rows = json.loads((out / "attack.json").read_text())["samples"]
        right = [row for row in rows if not row["wrong_before"]]
        fallen = [row for row in right if row["success_after_storage"]]
        # A hidden finding says more than an invented one.
        row = next((row for row in fallen if row["label"] == 1), (fallen or right)[0])
        result = np.asarray(Image.open(out / f"{row['sample']:06}.png").convert("L"), float)
    clean = np.load(DEMO / "phantoms.npz")["test_images"][row["sample"]].astype(float)
    change = result - clean
    factor = 127 / max(np.abs(change).max(), 1)
    gap = np.full((clean.shape[0], 1), 255.0)
    row_of = np.hstack([clean, gap, 128 + change * factor, gap, result])
    image = Image.fromarray(np.clip(row_of, 0, 255).round().astype(np.uint8))
    (DOCS / "attacks").mkdir(parents=True, exist_ok=True)
    image.resize((image.width * SCALE, image.height * SCALE), Image.NEAREST).save(DOCS / f"attacks/{family}.png", optimize=True)
    did = "the decision changes" if row["success_after_storage"] else "the decision stays"
    norm = threat.split(":")[0]
    size = f"{norm} distance {row['distance_after_storage']:.3g}, greatest change {np.abs(change).max():.0f} grey levels"
    return (f"`{spelled(attack, settings)}`, `{threat}`: {did}; {size}, drawn ×{factor:.3g}. "
            f"{len(fallen)} of {len(right)} samples fell.")


def catalogue():
    """The rows of `nocebo attacks`, cut at the columns of its head."""
    lines = nocebo("attacks").splitlines()
    head = lines[0]
    names = ["NAME", "FAMILY", "NORMS", "GOALS", "SEES", "CHANGE", "COST A SAMPLE", "TITLE (PAPER)"]
    starts = [head.index(name) for name in names]
    return [[line[start:end].strip() for start, end in zip(starts, [*starts[1:], None])]
            for line in lines[1:] if line.strip()]


def main():
    if not DEMO.exists():
        nocebo("demo", "--out", DEMO)
    rows = catalogue()
    families = list(dict.fromkeys(row[1] for row in rows))
    text = ["# Attacks", "", "<!-- Written by bench/docs.py. -->", "",
            "`nocebo attacks show NAME` prints every setting with its meaning, range and default. Pictures: a chest X-ray phantom, the",
            "change (grey is none; amplified by the factor named), the result. Several families look alike on purpose: what differs is",
            "what the attacker sees.", ""]
    for family in families:
        text += [f"## {family.replace('_', ' ').capitalize()}", ""]
        if family in PICTURES:
            caption = picture(family, *PICTURES[family])
            print(family, caption, flush=True)
            text += [f"![clean, change and result](attacks/{family}.png)", "", caption, ""]
        text += ["| attack | norms | goals | sees | change | cost a sample | title (paper) |", "|---|---|---|---|---|---|---|"]
        text += [f"| `{name}` | {norms.replace(',', ', ')} | {goals} | {sees} | {change} | {cost} | {title} |"
                 for name, of, norms, goals, sees, change, cost, title in rows if of == family]
        text.append("")
    quality = json.loads((ROOT / "bench/attack_quality.json").read_text())
    text += ["## How good they are", "",
             f"Made by `bench/attack_quality.py` ({quality['samples']} samples a network; {quality['steps']} steps,",
             f"{quality['queries']} queries), which says what is measured; read `bench/README.md` for what stands out.", "", markdown(quality), ""]
    (DOCS / "attacks.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
