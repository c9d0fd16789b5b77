"""Golden vectors for MeshNet: two published networks of brainchop, run by PyTorch on one small slab.

    bench/setup.sh && bench/.venv/bin/python bench/golden/meshnet.py

Reads ../shared/data/brainchop-models beside the checkout and writes crates/graph/tests/golden/meshnet.safetensors: the
logits of each network on a made-up slab, which the test makes by the same formula. No weight is in it.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT.parent / "shared/data/brainchop-models/meshnet"
SHAPE = (4, 6, 5)


def network(folder):
    """The layers of model.json: convolution and activation by turns, then the head."""
    plan = json.loads((folder / "model.json").read_text())
    activation = torch.nn.ELU if plan.get("elu") else torch.nn.ReLU
    state = load_file(folder / "model.pth")
    parts = []
    for number, layer in enumerate(plan["layers"]):
        out, into = state[f"model.{2 * number}.weight"].shape[:2]
        size, padding, dilation = layer["kernel_size"], layer["padding"], layer["dilation"]
        parts += [torch.nn.Conv3d(into, out, size, padding=padding, dilation=dilation), activation()]
    model = torch.nn.Sequential(*parts[:-1])
    model.load_state_dict({key.removeprefix("model."): value for key, value in state.items()}, strict=True)
    return model.eval()


def main():
    z, y, x = torch.meshgrid(*(torch.arange(side) for side in SHAPE), indexing="ij")
    slab = ((7 * z + 3 * y + 5 * x) % 11).float() / 10
    with torch.no_grad():
        logits = {name: network(MODELS / name)(slab[None, None]) for name in ("model5_gw_ae", "model18cls")}
    path = ROOT / "crates/graph/tests/golden/meshnet.safetensors"
    save_file(logits, path, metadata={"peer": f"torch {torch.__version__}", "script": "bench/golden/meshnet.py"})
    for name, values in logits.items():
        print(name, tuple(values.shape), values.flatten()[:4].tolist())


if __name__ == "__main__":
    main()
