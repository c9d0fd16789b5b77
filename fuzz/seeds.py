"""Writes the seeds of the fuzz targets: small files that between them use most parts of each format.

    bench/.venv/bin/python fuzz/seeds.py
"""

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
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


def pictures():
    grey = np.array([[0, 1, 200], [255, 7, 128]], np.uint8)
    deep = np.array([[0, 1, 258], [4095, 40000, 65535]], np.uint16)
    colour = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(grey).save(seed("png", "grey.png"))
    Image.fromarray(deep).save(seed("png", "deep.png"))
    Image.fromarray(colour).save(seed("png", "colour.png"))
    Image.fromarray(colour).convert("P").save(seed("png", "palette.png"))
    Image.fromarray(colour).save(seed("jpg", "colour.jpg"), quality=90)
    Image.fromarray(colour).save(seed("jpg", "progressive.jpg"), progressive=True, subsampling=2)
    Image.fromarray(colour).convert("L").save(seed("jpg", "grey.jpg"))
    for packing in ["tiff_lzw", "tiff_adobe_deflate", "packbits", None]:
        Image.fromarray(deep).save(seed("tif", f"{packing or 'plain'}.tif"), compression=packing)
    Image.fromarray(colour).save(seed("tif", "colour.tif"), compression="tiff_lzw")


def volumes():
    values = (np.arange(12, dtype=np.int16) * 2).reshape(3, 2, 2)
    image = nib.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0]))
    image.header.set_slope_inter(2.0, -1024.0)
    nib.save(image, seed("nii", "int16.nii"))
    nib.save(nib.Nifti2Image(values.astype(np.float32), np.eye(4)), seed("nii", "float.nii"))
    seed("nii-gz", "int16.nii.gz").write_bytes(gzip.compress(seed("nii", "int16.nii").read_bytes(), mtime=0))
    header = b"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 3 2 2\n"
    header += b"space directions: (0.5,0,0) (0,3,4) (0,0,1)\nkinds: domain domain domain\nendian: big\nencoding: "
    packed = values.astype(">i2").tobytes()
    seed("nrrd", "raw.nrrd").write_bytes(header + b"raw\n\n" + packed)
    seed("nrrd", "gzip.nrrd").write_bytes(header + b"gzip\n\n" + gzip.compress(packed, mtime=0))
    header = b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = True\nCompressedData = %s\n"
    header += b"Offset = 1 2 3\nElementSpacing = 0.5 2 4\nDimSize = 3 2 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    seed("mha", "raw.mha").write_bytes(header % b"False" + packed)
    seed("mha", "zlib.mha").write_bytes(header % b"True" + zlib.compress(packed))


def arrays():
    np.save(seed("npy", "floats.npy"), np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3))
    np.save(seed("npy", "fortran.npy"), np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)))
    parts = {}
    for part in ["train", "val", "test"]:
        parts[f"{part}_images"] = np.arange(16, dtype=np.uint8).reshape(4, 2, 2)
        parts[f"{part}_labels"] = np.array([[0], [1], [0], [1]], np.uint8)
    np.savez_compressed(seed("npz", "deflated.npz"), **parts)
    np.savez(seed("npz", "stored.npz"), **parts)


def signals():
    header = "source {} 360 8\n"
    one = "source.dat {} 200({})/mV 12 0 0 0 0 {}\n"
    for name, storage, values in [
        ("16", 16, np.arange(-8, 8, dtype="<i2").tobytes()),
        ("212", 212, bytes(range(24))),
        ("80", 80, bytes(range(120, 136))),
        ("24", 24, bytes(range(48))),
        ("32", 32, np.arange(16, dtype="<i4").tobytes()),
    ]:
        text = header.format(2) + one.format(storage, 1, "MLII") + one.format(storage, 0, "V5")
        seed("hea", f"{name}.hea").write_bytes(text.encode() + b"\n---\n" + values)
    # A rhythm with its text, beats, a long interval, the end.
    marks = [28 << 10 | 18, 63 << 10 | 2, 0x4E28, 1 << 10 | 77, 59 << 10, 0, 4000, 5 << 10 | 3, 1 << 10 | 290, 0]
    seed("atr", "beats.atr").write_bytes(np.array(marks, "<u2").tobytes())
    field = lambda texts, width: "".join(f"{text:{width}}" for text in texts)
    names = ["EEG Fpz-Cz", "EDF Annotations"]
    text = field(["0"], 8) + field(["X X X X", "Startdate X X X X"], 80) + field(["01.01.85", "00.00.00", "768"], 8)
    text += field(["EDF+C"], 44) + field(["2", "1"], 8) + field(["2"], 4) + field(names, 16) + field(["", ""], 80)
    text += field(["uV", "", "-100", "-1", "100", "1", "-2048", "-32768", "2047", "32767"], 8) + field(["", ""], 80)
    text += field(["4", "8"], 8) + field(["", ""], 32)
    body = b""
    for record in range(2):
        body += np.arange(4, dtype="<i2").tobytes() + (b"+%d\x14\x14\0+1\x14seizure\x14\0" % record).ljust(16, b"\0")
    seed("edf", "annotated.edf").write_bytes(text.encode() + body)
    seed("xml", "boxes.xml").write_text(
        "<annotation><object><name>cell</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
        "</object><object><name>other</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>3</xmax><ymax>9</ymax></bndbox>"
        "</object></annotation>\n"
    )


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for write_seeds in [tables, pictures, volumes, arrays, signals]:
        write_seeds()
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
