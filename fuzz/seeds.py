"""Writes the seeds of the fuzz targets: small files that between them use most parts of each format.

    bench/.venv/bin/python fuzz/seeds.py
"""

from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

SEEDS = Path(__file__).parent / "seeds"
FOLDER = SEEDS / "onnx"


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


def seed(reader, name):
    """The path of a seed of this reader."""
    folder = SEEDS / reader
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def tables():
    rows = 12
    table = pa.table(
        {
            "patient": [f"p{row // 2}" for row in range(rows)],
            "sex": ["f", "m", None] * 4,
            "age": pa.array([40 + row for row in range(rows)], pa.uint8()),
            "lab": [None if row == 3 else 0.25 * row for row in range(rows)],
            "dose": pa.array([1.5 + row for row in range(rows)], pa.float32()),
            "smoker": [row % 3 == 0 for row in range(rows)],
            "seen": pa.array([18000 + row for row in range(rows)], pa.date32()),
            "drawn": pa.array([1_600_000_000_500 + row for row in range(rows)], pa.timestamp("ms")),
            "label": ["ill" if row % 2 else "well" for row in range(rows)],
            "__index_level_0__": list(range(rows)),
        }
    )
    plain = dict(write_statistics=False, store_schema=False)
    pq.write_table(table, seed("parquet", "snappy.parquet"), compression="snappy", row_group_size=8, **plain)
    small = table.select(["age", "lab", "label"])
    pq.write_table(small, seed("parquet", "gzip.parquet"), compression="gzip", data_page_version="2.0", **plain)
    pq.write_table(small, seed("parquet", "plain.parquet"), compression="none", use_dictionary=False, **plain)
    seed("arff", "weka.arff").write_text(
        "% a comment\n@RELATION 'a b'\n\n@attribute 'heart rate' NUMERIC\n@ATTRIBUTE grade {low,'very high'}\n"
        "@attribute seen date\n@attribute class {ill,well,unknown}\n\n@DATA\n"
        "61.5,low,2020-01-31,ill\n72, 'very high' ,?,well\n?,low,2020-02-01,well\n70.25,low,2020-02-03,ill\n"
    )
    seed("csv", "comma.csv").write_text(
        "patient,sex,dose,lab,seen,label\np1,f,1.5,200,2020-02-29,ill\np2,\"m\",2.25e1,180,2020-03-01 12:00,well\n"
        "p3,f,-4.0,?,2021-01-01,ill\np4,m,0.25,220,2019-12-31,well\n"
    )
    seed("csv", "semicolon.csv").write_text("a;b;label\n1,5;7;0\n2,25;8;1\n-3;9;1\n")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    tables()
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
