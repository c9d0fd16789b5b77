"""ONNX files written by nocebo give the same outputs in ONNX Runtime.

    bench/setup.sh && cargo build --release
    bench/.venv/bin/python bench/onnx_agreement.py FILE.onnx [FILE.onnx ...]

For each file: 16 random inputs in the range of an 8-bit image, the greatest difference of the outputs, and exit code 1
when it exceeds 1e-4 (relative to the greatest output where that is above 1).
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

PROGRAM = Path(__file__).resolve().parents[1] / "target/release/nocebo"
LIMIT = 1e-4


def difference(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (model_input,) = session.get_inputs()
    shape = [side if isinstance(side, int) else 16 for side in model_input.shape]
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    theirs = session.run(None, {model_input.name: values})
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/input.npy", values)
        arguments = [PROGRAM, "run", path, "--input", f"{folder}/input.npy", "--out", f"{folder}/out"]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        ours = [np.load(f"{folder}/out/{output.name}.npy") for output in session.get_outputs()]
    return max(np.abs(a - b).max() / max(1.0, np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))


def main():
    print(f"ONNX Runtime {onnxruntime.__version__}")
    worst = 0.0
    for path in sys.argv[1:]:
        worst = max(worst, found := difference(path))
        print(f"{Path(path).name}: greatest difference {found:.2e}")
    sys.exit(worst > LIMIT or len(sys.argv) == 1)


if __name__ == "__main__":
    main()
