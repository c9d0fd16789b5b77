"""Writes the seeds of the fuzz target: small models that between them use most parts of the format.

    bench/.venv/bin/python fuzz/seeds.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(__file__).parent / "seeds/onnx"


def floats(name, shape):
    values = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return numpy_helper.from_array(values, name)


def write(name, nodes, inputs, outputs, constants, opset):
    value = lambda name, shape, kind=TensorProto.FLOAT: helper.make_tensor_value_info(name, kind, shape)
    graph = helper.make_graph(nodes, name, [value(*i) for i in inputs], [value(o, None) for o in outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, {"unit": "grey level"})
    onnx.shape_inference.infer_shapes(model, strict_mode=True)
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString())


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    node = helper.make_node
    write(
        "convolution",
        [
            node("Conv", ["x", "kernels"], ["a"], pads=[1, 1, 1, 1], name="conv"),
            node("Relu", ["a"], ["b"], name="relu"),
            node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Resize", ["c", "", "scales"], ["d"], mode="linear"),
            node("Reshape", ["d", "shape"], ["e"]),
            node("Gemm", ["e", "weights"], ["y"], transB=1),
        ],
        [("x", ["batch", 1, 4, 4])],
        ["y"],
        [
            floats("kernels", (2, 1, 3, 3)),
            floats("weights", (3, 32)),
            numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
            numpy_helper.from_array(np.array([0, -1]), "shape"),
        ],
        17,
    )
    write(
        "attention",
        [
            node("MatMul", ["x", "w"], ["q"]),
            node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
            node("MatMul", ["q", "k"], ["s"]),
            node("Softmax", ["s"], ["p"], axis=-1),
            node("Einsum", ["p", "x"], ["o"], equation="bij,bjk->bik"),
            node("Constant", [], ["axes"], value_ints=[1]),
            node("ReduceSum", ["o", "axes"], ["r"], keepdims=0),
            node("Greater", ["r", "zero"], ["m"]),
            node("Where", ["m", "r", "zero"], ["y"]),
        ],
        [("x", [2, 3, 4])],
        ["y"],
        [floats("w", (4, 4)), numpy_helper.from_array(np.float32(0), "zero")],
        13,
    )
    write(
        "quantised",
        [
            node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
            node("LSTM", ["d", "w", "r"], ["", "h"], hidden_size=2),
            node("Shape", ["h"], ["s"]),
            node("ConstantOfShape", ["s"], ["c"], value=numpy_helper.from_array(np.array([2], np.float32))),
            node("Add", ["h", "c"], ["y"]),
        ],
        [("x", [3, 1, 2])],
        ["y"],
        [
            floats("w", (1, 8, 2)),
            floats("r", (1, 8, 2)),
            numpy_helper.from_array(np.float32(0.5), "scale"),
            numpy_helper.from_array(np.int8(3), "zero"),
        ],
        17,
    )


if __name__ == "__main__":
    main()
