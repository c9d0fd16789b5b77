"""Every network of the zoo against ONNX Runtime, PyTorch and torchvision, in one run.

    bench/setup.sh
    bench/.venv/bin/python bench/zoo.py

Exports all networks with random weights (`cargo run --release -p nocebo-engine --example zoo`), then prints for each: the
greatest difference of its outputs from ONNX Runtime, relative to the greatest value; the distance of its gradient, and of
PyTorch's in 32 bits, from PyTorch's in 64 bits, relative to its norm; the difference from the network of torchvision or PyTorch
with the same weights, by name; and milliseconds to load the file, of a forward pass, and of one with the gradient, by Burn, by
the engine and in PyTorch eager, each the median of 5. PyTorch runs the ONNX file node by node (`TorchGraph`): one definition,
so the same layers and weights.

Rounding moves single ReLUs and max-pools over their kinks, in PyTorch as here. Where a gradient is further than 1e-4 from that
in 64 bits, the units within rounding of their kinks are turned over in 64 bits, one at a time, and those that bring it nearer are
kept: the distance that is left, and how many were turned over, are printed behind it.

Exit code 1 when a difference from ONNX Runtime or the reference exceeds 1e-4, or that is left of a gradient's.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
import torchvision
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[1]
LIMIT, RUNS = 1e-4, 5
TORCHVISION = {
    "densenet121": "densenet121",
    "efficientnet-b0": "efficientnet_b0",
    "mobilenet-v2": "mobilenet_v2",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
}


class Records(torch.nn.Module):
    """A recurrent layer of PyTorch and a linear layer on its last state."""

    def __init__(self, name, features, classes):
        super().__init__()
        self.name = name
        self.add_module(name, {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name](features, 128, batch_first=True))
        self.fc = torch.nn.Linear(128, classes)

    def forward(self, x):
        return self.fc(getattr(self, self.name)(x.transpose(1, 2))[0][:, -1])


class TorchGraph:
    """An ONNX file run node by node with the functions of PyTorch."""

    def __init__(self, path, precision=torch.float32):
        graph = onnx.load(path).graph
        self.constants = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
        for name, value in self.constants.items():
            self.constants[name] = value.to(precision) if value.is_floating_point() else value
        self.inputs = [i.name for i in graph.input]
        self.outputs = [o.name for o in graph.output]
        self.nodes = []
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            self.nodes.append((getattr(self, f"op_{node.op_type}"), attributes, list(node.input), list(node.output)))

    def __call__(self, *inputs):
        values = {"": None, **self.constants, **dict(zip(self.inputs, inputs, strict=True))}
        for operation, attributes, names, outputs in self.nodes:
            results = operation(attributes, *(values[name] for name in names))
            results = results if isinstance(results, tuple) else (results,)
            values.update(zip(outputs, results))
        return [values[name] for name in self.outputs]

    op_Add = staticmethod(lambda a, x, y: x + y)
    op_Sub = staticmethod(lambda a, x, y: x - y)
    op_Mul = staticmethod(lambda a, x, y: x * y)
    op_Div = staticmethod(lambda a, x, y: x / y)
    op_Exp = staticmethod(lambda a, x: x.exp())
    op_Relu = staticmethod(lambda a, x: x.relu())
    op_LeakyRelu = staticmethod(lambda a, x: F.leaky_relu(x, a["alpha"]))
    op_Elu = staticmethod(lambda a, x: F.elu(x, a["alpha"]))
    op_Gelu = staticmethod(lambda a, x: F.gelu(x))
    op_Sigmoid = staticmethod(lambda a, x: x.sigmoid())
    op_Tanh = staticmethod(lambda a, x: x.tanh())
    op_Clip = staticmethod(lambda a, x, low, high: x.clamp(low, high))
    op_Dropout = staticmethod(lambda a, x, *_: x)
    op_Softmax = staticmethod(lambda a, x: x.softmax(a["axis"]))
    op_MatMul = staticmethod(lambda a, x, y: x @ y)
    op_Flatten = staticmethod(lambda a, x: x.flatten(1))
    op_Concat = staticmethod(lambda a, *x: torch.cat(x, a["axis"]))
    op_Transpose = staticmethod(lambda a, x: x.permute(a["perm"]))
    op_Shape = staticmethod(lambda a, x: torch.tensor(x.shape[a.get("start", 0) : a.get("end")]))
    op_Expand = staticmethod(lambda a, x, shape: x.expand(shape.tolist()))
    op_Unsqueeze = staticmethod(lambda a, x, axes: x.unsqueeze(axes.item()))
    op_Squeeze = staticmethod(lambda a, x, axes: x.squeeze(axes.item()))
    op_Where = staticmethod(lambda a, mask, x, y: torch.where(mask, x, y))
    op_GlobalAveragePool = staticmethod(lambda a, x: x.mean(tuple(range(2, x.dim())), keepdim=True))

    @staticmethod
    def op_Gemm(a, x, weight, bias):
        return F.linear(x, weight if a.get("transB") else weight.T, bias)

    @staticmethod
    def op_Reshape(a, x, shape):
        return x.reshape(shape.tolist())

    @staticmethod
    def op_Gather(a, x, index):
        axis = a.get("axis", 0)
        return x.select(axis, index.item()) if index.dim() == 0 else x.index_select(axis, index)

    @staticmethod
    def op_BatchNormalization(a, x, scale, shift, mean, variance):
        return F.batch_norm(x, mean, variance, scale, shift, eps=a["epsilon"])

    @staticmethod
    def op_GroupNormalization(a, x, scale, shift):
        return F.group_norm(x, a["num_groups"], scale, shift, a["epsilon"])

    @staticmethod
    def op_LayerNormalization(a, x, scale, shift):
        return F.layer_norm(x, scale.shape, scale, shift, a["epsilon"])

    @staticmethod
    def padded(a, x, kernel, strides, value=0.0):
        """The input with its border, and what is left of the padding for the function itself."""
        axes = len(kernel)
        pads = list(a.get("pads", [0] * 2 * axes))
        if a.get("auto_pad", b"NOTSET") == b"SAME_UPPER":
            for axis, (side, size, stride) in enumerate(zip(x.shape[2:], kernel, strides)):
                total = max((-(-side // stride) - 1) * stride + size - side, 0)
                pads[axis], pads[axes + axis] = total // 2, total - total // 2
        if pads[:axes] == pads[axes:]:
            return x, pads[:axes]
        border = [pads[axis + half] for axis in reversed(range(axes)) for half in (0, axes)]
        return F.pad(x, border, value=value), [0] * axes

    @classmethod
    def op_Conv(cls, a, x, weight, bias=None):
        axes = x.dim() - 2
        strides = a.get("strides", [1] * axes)
        x, padding = cls.padded(a, x, weight.shape[2:], strides)
        function = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
        return function(x, weight, bias, strides, padding, a.get("dilations", 1), a.get("group", 1))

    @staticmethod
    def op_ConvTranspose(a, x, weight, bias=None):
        axes = x.dim() - 2
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]
        padding = a.get("pads", [0] * 2 * axes)[:axes]
        return function(x, weight, bias, a["strides"], padding, a.get("output_padding", 0))

    @staticmethod
    def op_MaxPool(a, x):
        axes = x.dim() - 2
        function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
        return function(x, a["kernel_shape"], a["strides"], a.get("pads", [0] * 2 * axes)[:axes])

    @staticmethod
    def op_AveragePool(a, x):
        return (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[x.dim() - 3](x, a["kernel_shape"], a["strides"])

    @staticmethod
    def op_Resize(a, x, _region, _scales, sizes):
        space = sizes.tolist()[-(x.dim() - 2) :]
        if a["mode"] == b"nearest":
            return F.interpolate(x, space, mode="nearest")
        return F.interpolate(x, space, mode=("linear", "bilinear", "trilinear")[x.dim() - 3], align_corners=False)

    @staticmethod
    def recurrent(function, gates, x, weight, recurrent, bias):
        """PyTorch's layer with the gates put back into its order."""
        hidden = recurrent.shape[2]
        rows = torch.cat([torch.arange(gate * hidden, (gate + 1) * hidden) for gate in gates])
        here, there = bias[0].chunk(2)
        weights = [weight[0][rows], recurrent[0][rows], here[rows], there[rows]]
        zero = x.new_zeros(1, x.shape[1], hidden)
        state = (zero, zero) if function is torch.lstm else zero
        output, last = function(x, state, weights, True, 1, 0.0, False, False, False)[:2]
        return output.unsqueeze(1), last

    @classmethod
    def op_LSTM(cls, a, x, *weights):
        return cls.recurrent(torch.lstm, (0, 2, 3, 1), x, *weights)

    @classmethod
    def op_GRU(cls, a, x, *weights):
        return cls.recurrent(torch.gru, (1, 0, 2), x, *weights)


class Kinks(TorchGraph):
    """A graph that remembers what enters its ReLUs and max-pools, and turns one unit of one of them over."""

    def __init__(self, path, precision, turned=None):
        self.entered, self.turned = [], turned
        super().__init__(path, precision)

    def unit(self, x):
        """The unit of this node that is turned over, if any."""
        self.entered.append(x.detach())
        return self.turned[1] if self.turned and self.turned[0] == len(self.entered) - 1 else None

    def op_Relu(self, a, x):
        unit, on = self.unit(x), x > 0
        if unit is not None:
            on.view(-1)[unit] ^= True
        return x * on

    def op_MaxPool(self, a, x):
        unit, (first, second) = self.unit(x), self.two_greatest(a, x)
        if unit is not None:
            first.view(-1)[unit] = second.view(-1)[unit]
        return x.flatten(2).gather(2, first.flatten(2)).view(first.shape)

    @staticmethod
    def two_greatest(a, x):
        """Places of the two greatest values of each window of a pool without overlap."""
        axes = x.dim() - 2
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
        assert a["kernel_shape"] == a["strides"] and not any(a.get("pads", []))
        values = x.detach()
        first = pool(values, a["kernel_shape"], return_indices=True)[1]
        rest = values.flatten(2).scatter(2, first.flatten(2), -torch.inf).view(x.shape)
        return first, pool(rest, a["kernel_shape"], return_indices=True)[1]

    def near(self, rounded):
        """Units that rounding may turn over: (node, unit), given the same nodes in 32 bits."""
        kinds = [(operation, a) for operation, a, _, _ in self.nodes if operation in (self.op_Relu, self.op_MaxPool)]
        for node, ((operation, a), exact, other) in enumerate(zip(kinds, self.entered, rounded.entered, strict=True)):
            size = exact.abs()
            if operation == self.op_MaxPool:
                first, second = (exact.flatten(2).gather(2, place.flatten(2)) for place in self.two_greatest(a, exact))
                size = torch.where(first > 0, first - second, torch.inf)
            close = 3 * (exact - other).abs().max()
            yield from ((node, unit.item()) for unit in (size.reshape(-1) < close).nonzero())


def without_kinks(path, leaves, ours):
    """Distance of our gradient from that in 64 bits with units near their kinks turned over, and the number of these."""
    wide = [values.detach().double().requires_grad_() for values in leaves]

    def slope(graph):
        return torch.cat([part.flatten() for part in torch.autograd.grad(graph(*wide)[0].sum(), wide)]).numpy()

    exact, rounded = Kinks(path, torch.float64), Kinks(path, torch.float32)
    truth = slope(exact)
    with torch.no_grad():
        rounded(*leaves)
    changes = [slope(Kinks(path, torch.float64, unit)) - truth for unit in exact.near(rounded)]
    left, turned = np.concatenate([part.ravel() for part in ours]) - truth, 0
    while changes:
        sizes = [np.linalg.norm(left - change) for change in changes]
        best = int(np.argmin(sizes))
        if sizes[best] >= np.linalg.norm(left):
            break
        left, turned = left - changes.pop(best), turned + 1
    return float(np.linalg.norm(left) / np.linalg.norm(truth)), turned


def tensors(folder, kind):
    paths = sorted(folder.glob(f"{kind}_*.pb"))
    return [numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())) for path in paths]


def difference(ours, theirs):
    """Greatest difference, as a part of the greatest value."""
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))


def distance(ours, theirs):
    """Norm of the difference, as a part of the norm."""
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(ours, theirs, strict=True))


def median(work):
    work()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[RUNS // 2]


def by_reference(name, graph, inputs, ours):
    """Difference from the network of torchvision or PyTorch with the same weights; None where there is none."""
    classes = ours[0].shape[1]
    if name in TORCHVISION:
        model = getattr(torchvision.models, TORCHVISION[name])(num_classes=classes).eval()
    elif name in ("lstm", "gru"):
        model = Records(name, inputs[0].shape[1], classes).eval()
    else:
        return None
    state = {key: value for key, value in graph.constants.items() if "/" not in key}
    wanted = model.state_dict()
    counters = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")}
    model.load_state_dict({key: value for key, value in state.items() if key in wanted} | counters, strict=True)
    with torch.no_grad():
        mean, deviation = graph.constants["preprocessing/mean"], graph.constants["preprocessing/standard_deviation"]
        return difference(ours, [model((torch.from_numpy(inputs[0].copy()) - mean) / deviation).numpy()])


def compare(name, folder, ours):
    path = folder / "model.onnx"
    inputs, outputs, gradients = (tensors(folder, kind) for kind in ("input", "output", "gradient"))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    named = {model_input.name: values for model_input, values in zip(session.get_inputs(), inputs, strict=True)}
    runtime = difference(outputs, session.run(None, named))
    graph = TorchGraph(path)
    leaves = [torch.from_numpy(values.copy()).requires_grad_() for values in inputs]

    def forward():
        with torch.no_grad():
            graph(*leaves)

    def gradient():
        return torch.autograd.grad(graph(*leaves)[0].sum(), leaves)

    wide = [values.detach().double().requires_grad_() for values in leaves]
    truth = torch.autograd.grad(TorchGraph(path, torch.float64)(*wide)[0].sum(), wide)
    truth = [slope.numpy() for slope in truth]
    slopes = distance(gradients, truth), distance([slope.numpy() for slope in gradient()], truth)
    reference = by_reference(name, graph, inputs, outputs)
    theirs = [median(lambda: TorchGraph(path)), median(forward), median(gradient)]
    engine = [f"{1e3 * seconds:.1f}" for seconds in ours[3:]] or 3 * ["-"]
    left, note = slopes[0], ""
    if left > LIMIT:
        left, turned = without_kinks(path, leaves, gradients)
        note = f" ({left:.1e} with {turned} units turned over)"
    cells = [f"{1e3 * burn:.1f}, {planned}, {1e3 * other:.1f}" for burn, planned, other in zip(ours, engine, theirs)]
    shown = "-" if reference is None else f"{reference:.1e}"
    print(f"| {name} | {runtime:.1e} | {slopes[0]:.1e}{note}, {slopes[1]:.1e} | {shown} | {' | '.join(cells)} |", flush=True)
    return max(runtime, left, reference or 0.0) <= LIMIT


def main():
    with tempfile.TemporaryDirectory() as folder:
        command = ["cargo", "run", "--release", "--quiet", "-p", "nocebo-engine", "--example", "zoo", "--", folder]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        times = json.loads((Path(folder) / "times.json").read_text())
        print(f"ONNX Runtime {onnxruntime.__version__}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
        print("| network | ONNX Runtime | gradient: ours, PyTorch's | reference | load ms: Burn, engine, PyTorch | forward | with gradient |")
        print("|---|---|---|---|---|---|---|")
        right = [compare(name, Path(folder) / name, ours) for name, ours in times.items()]
        sys.exit(not all(right))


if __name__ == "__main__":
    main()
