"""Counts findings that are raised on honest, adversarially trained networks: each is a false alarm.

    cargo build --release -p nocebo-cli
    python bench/false_alarms.py --seeds 5

For each seed a small network is trained on PneumoniaMNIST (../shared/data), hardened with PGD adversarial training, and
audited with a protocol. The script prints every finding that failed.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nocebo", default="target/release/nocebo", help="the program")
    parser.add_argument("--data", default="../shared/data/pneumoniamnist/pneumoniamnist.npz")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--protocol", default="quick")
    parser.add_argument("--threat", default="linf:1,2,4,8")
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    nocebo, data = str(pathlib.Path(arguments.nocebo).resolve()), str(pathlib.Path(arguments.data).resolve())
    alarms = 0
    for seed in range(1, arguments.seeds + 1):
        with tempfile.TemporaryDirectory() as name:

            def run(*words: str) -> None:
                subprocess.run([nocebo, *words, "--seed", str(seed), "--quiet"], cwd=name, check=True, capture_output=True)

            epochs = str(arguments.epochs)
            run("train", "--data", data, "--architecture", "small-cnn", "--epochs", epochs, "--out", "m.onnx")
            run("harden", "m.onnx", "--data", data, "--threat", "linf:4", "--epochs", epochs, "--out", "h.onnx")
            run(
                "audit", "--model", "h.onnx", "--data", data, "--samples", str(arguments.samples), "--threat",
                arguments.threat, "--protocol", arguments.protocol, "--include-images", "0", "--out", "audit",
            )
            audit = json.loads((pathlib.Path(name) / "audit" / "audit.json").read_text())
            failed = [finding for finding in audit["findings"] if finding["status"] == "fail"]
            alarms += len(failed)
            print(f"seed {seed}: clean accuracy {audit['clean']['accuracy']['value']:.3f}, {len(failed)} findings raised")
            for finding in failed:
                print(f"  {finding['id']}: {finding['detail']}")
    print(f"{alarms} false alarms over {arguments.seeds} seeds")


if __name__ == "__main__":
    main()
