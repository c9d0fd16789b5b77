"""Forward + input gradient of frozen networks: nocebo's engine against PyTorch, side by side on the same threads.

    cargo build --release -p nocebo-engine --example passes
    bench/setup.sh && bench/.venv/bin/python bench/peers/passes.py [--only TEXT] [--binary PATH] [--out results.json]

The networks are the zoo's with random weights, written as ONNX, read by both sides. The two sides take turns, two passes each, of which the second counts.
`eager` is PyTorch as attack libraries run it (NCHW, parameters frozen); `best` has channels last and batch normalisation
folded. `--cost` times the engine alone instead: a pass of twice the batch, of twice the sides, and on one thread, each as a
ratio to the pass of the table. Prints a table and writes JSON: wall and CPU milliseconds of every pass, ratios of medians and of minima, agreement
of logits and gradients, peak resident memory (each side in a process of its own).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Name, sample shape, batch.
NETWORKS = [
    ("small-cnn", (1, 28, 28), 64),
    ("resnet18", (3, 28, 28), 64),
    ("resnet18", (3, 224, 224), 8),
    ("resnet1d", (12, 1000), 16),
    ("densenet121", (3, 64, 64), 8),
    ("resnet50", (3, 64, 64), 8),
]


class Line:
    """A process that answers a line for a line."""

    def __init__(self, command, threads):
        variables = {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
        )

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"`{line}`: no answer")
        return answer.strip()

    def second_pass(self):
        """Wall and CPU milliseconds of a pass after another one, as in an attack: the first finds the other side's caches."""
        self.ask("gradient")
        return list(map(float, self.ask("gradient").split()))

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def fold(model):
    """Folds batch normalisation into the convolutions before it."""
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    parts = dict(model.named_modules())
    for node in list(model.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if before is None or getattr(before, "op", "") != "call_module" or len(before.users) > 1:
            continue
        norm, conv = parts[node.target], parts[before.target]
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm) and isinstance(conv, torch.nn.modules.conv._ConvNd):
            model.add_submodule(before.target, fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(before)
            model.graph.erase_node(node)
    model.recompile()


def serve_torch(path, mode, threads):
    """The same commands as the example `passes`, answered by PyTorch."""
    import numpy
    import onnx
    import resource
    import torch
    from onnx2torch import convert

    torch.set_num_threads(threads)
    model = convert(onnx.load(path)).eval().requires_grad_(False)
    if mode == "best":
        fold(model)
        model.requires_grad_(False)
    x = last = None
    for line in sys.stdin:
        words = line.split()
        if words[0] == "inputs":
            shape = [int(words[2]), *map(int, words[3].split(","))]
            x = torch.from_numpy(numpy.fromfile(words[1], "<f4").reshape(shape))
            if mode == "best" and len(shape) == 4:
                x = x.contiguous(memory_format=torch.channels_last)
                model = model.to(memory_format=torch.channels_last)
            print("ok", flush=True)
        elif words[0] == "gradient":
            start, cpu = time.perf_counter(), time.process_time()
            leaf = x.detach().requires_grad_(True)
            logits = model(leaf)
            (slope,) = torch.autograd.grad(logits.sum(), leaf)
            print((time.perf_counter() - start) * 1e3, (time.process_time() - cpu) * 1e3, flush=True)
            last = logits.detach(), slope
        elif words[0] == "write":
            with open(words[1], "wb") as file:
                for part in last:
                    file.write(part.contiguous(memory_format=torch.contiguous_format).numpy().tobytes())
            print("ok", flush=True)
        elif words[0] == "peak":
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


def compare(network, arguments, folder):
    import numpy

    name, shape, batch = network
    sides = ",".join(map(str, shape))
    path = folder / f"{name}-{sides}.onnx"
    subprocess.run([arguments.binary, "zoo", name, sides, path], check=True)
    inputs = folder / "inputs.f32"
    numpy.random.default_rng(1).uniform(0, 255, batch * int(numpy.prod(shape))).astype("<f4").tofile(inputs)
    here = [sys.executable, __file__, "--serve", path, "--threads", str(arguments.threads)]
    servers = {
        side: Line([arguments.binary, path, side] if side.startswith("engine") else [*here, "--mode", side], arguments.threads)
        for side in arguments.sides.split(",")
    }
    result = {"network": name, "shape": shape, "batch": batch, "wall": {}, "cpu": {}, "peak": {}}
    for side, server in servers.items():
        server.ask(f"inputs {inputs} {batch}" + ("" if side.startswith("engine") else f" {sides}"))
        server.ask("gradient")
    for _ in range(arguments.rounds):
        for side, server in servers.items():
            wall, cpu = server.second_pass()
            result["wall"].setdefault(side, []).append(wall)
            result["cpu"].setdefault(side, []).append(cpu)
    answers = {}
    for side, server in servers.items():
        written = folder / f"{side}.f32"
        server.ask(f"write {written}")
        answers[side] = numpy.fromfile(written, "<f4").astype(float)
        result["peak"][side] = float(server.ask("peak"))
        server.end()
    size = batch * int(numpy.prod(shape))
    logits, slopes = [{side: part(values) for side, values in answers.items()} for part in
                      (lambda values: values[:-size], lambda values: values[-size:])]
    result["logits"] = float(numpy.linalg.norm(logits["engine"] - logits["best"]) / numpy.linalg.norm(logits["best"]))
    result["cosine"] = float(slopes["engine"] @ slopes["best"]
                             / numpy.linalg.norm(slopes["engine"]) / numpy.linalg.norm(slopes["best"]))
    return result


def cost(network, arguments, folder):
    """Ratios of the engine's medians: twice the batch, twice the sides, one thread."""
    import numpy

    name, shape, batch = network
    variants = {
        "once": (shape, batch, arguments.threads),
        "batch": (shape, 2 * batch, arguments.threads),
        "sides": ((shape[0], *(2 * side for side in shape[1:])), batch, arguments.threads),
        "thread": (shape, batch, 1),
    }
    servers = {}
    for variant, (sample, count, threads) in variants.items():
        sides = ",".join(map(str, sample))
        path, inputs = folder / f"{name}-{sides}.onnx", folder / "inputs.f32"
        subprocess.run([arguments.binary, "zoo", name, sides, path], check=True)
        numpy.random.default_rng(1).uniform(0, 255, count * int(numpy.prod(sample))).astype("<f4").tofile(inputs)
        servers[variant] = Line([arguments.binary, path, "engine"], threads)
        servers[variant].ask(f"inputs {inputs} {count}")
        servers[variant].ask("gradient")
    wall = {variant: [] for variant in variants}
    for _ in range(arguments.rounds):
        for variant, server in servers.items():
            wall[variant].append(server.second_pass()[0])
    for server in servers.values():
        server.end()
    ratios = [statistics.median(wall[variant]) / statistics.median(wall["once"]) for variant in ("batch", "sides", "thread")]
    print(f"{name} {'x'.join(map(str, shape))}, {batch}: twice the batch {ratios[0]:.2f}, twice the sides {ratios[1]:.2f} "
          f"({2 ** (len(shape) - 1)} times the elements), 1 to {arguments.threads} threads {ratios[2]:.2f}", flush=True)
    return {"network": name, "shape": shape, "batch": batch, "wall": wall}


def table(results):
    sides = list(results[0]["wall"])
    head = ["network", "batch", *(f"{side} ms" for side in sides), "engine/best (median, min, CPU)", "MiB engine/best", "logits",
            "cosine"]
    rows = [head]
    for r in results:
        def shown(side):
            times = sorted(r["wall"][side])
            return f"{statistics.median(times):.1f} [{times[0]:.1f}, {times[-1]:.1f}]"

        ratios = [f(kind["engine"]) / f(kind["best"]) for kind, f in
                  [(r["wall"], statistics.median), (r["wall"], min), (r["cpu"], sum)] if f(kind["best"])]
        rows.append([f"{r['network']} {'x'.join(map(str, r['shape']))}", str(r["batch"]),
                     *map(shown, sides), ", ".join(f"{ratio:.2f}" for ratio in ratios),
                     f"{r['peak']['engine']:.0f}/{r['peak']['best']:.0f}", f"{r['logits']:.1e}", f"{r['cosine']:.8f}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print(" | ".join(cell.ljust(width) for cell, width in zip(row, widths)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=str(ROOT / "target/release/examples/passes"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sides", default="engine,engine-direct,eager,best", help="engine and best must be among them")
    parser.add_argument("--only", default="", help="networks whose `name shape` contains this, such as `resnet18 3x28`")
    parser.add_argument("--out", default=str(ROOT / "target/peers-passes.json"))
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--serve")
    parser.add_argument("--mode")
    arguments = parser.parse_args()
    if arguments.serve:
        return serve_torch(arguments.serve, arguments.mode, arguments.threads)
    networks = [n for n in NETWORKS if arguments.only in f"{n[0]} {'x'.join(map(str, n[1]))}"]
    with tempfile.TemporaryDirectory() as folder:
        results = [(cost if arguments.cost else compare)(network, arguments, Path(folder)) for network in networks]
    Path(arguments.out).write_text(json.dumps(results, indent=1))
    if not arguments.cost:
        table(results)


if __name__ == "__main__":
    main()
