"""Compares WFDB records and annotations as nocebo reads them with the Python package `wfdb`: every stored value.

    cargo run --release -p nocebo-data --example wfdb_dump -- ../shared/data/mitbih ../shared/data/wfdb-samples > dump.txt
    bench/.venv/bin/python bench/wfdb_agreement.py dump.txt

The example prints one line a signal and one an annotation file, with a digest of all values; this script makes the same
digests from `wfdb` and prints one line a record that differs or that one side refuses.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import wfdb


def digest(values):
    return hashlib.sha256(np.asarray(values, dtype="<i8").tobytes()).hexdigest()[:16]


def signals(path):
    name = str(path.with_suffix(""))
    if any(count != 1 for count in wfdb.rdheader(name).samps_per_frame):
        record = wfdb.rdrecord(name, physical=False, smooth_frames=False, ignore_skew=True)
        values = record.e_d_signal
    else:
        record = wfdb.rdrecord(name, physical=False, ignore_skew=True)
        values = record.d_signal.T
    return [
        f"{float(record.fs)!r} {float(gain)!r} {baseline} {unit} {len(column)} {digest(column)}"
        for column, gain, baseline, unit in zip(values, record.adc_gain, record.baseline, record.units)
    ]


def annotations(path):
    found = wfdb.rdann(str(path.with_suffix("")), path.suffix[1:], return_label_elements=["label_store"])
    return [f"{len(found.sample)} {digest(found.sample)} {digest(found.label_store)}"]


ours = {}
for line in Path(sys.argv[1]).read_text().splitlines():
    path, _, rest = line.partition("\t")
    ours.setdefault(Path(path), []).append(rest)

equal = refused = 0
differing = []
for path, lines in sorted(ours.items()):
    try:
        theirs = signals(path) if path.suffix == ".hea" else annotations(path)
    except Exception as error:  # whatever wfdb says of a file
        theirs = [f"refused: {type(error).__name__}"]
    if lines == theirs:
        equal += 1
    elif lines[0].startswith("refused"):
        refused += 1
        print(f"{path}: nocebo {lines[0]}; wfdb {'refuses it too' if theirs[0].startswith('refused') else 'reads it'}")
    else:
        differing.append(path)
        print(f"{path}: DIFFERENT\n  nocebo {lines}\n  wfdb   {theirs}")
print(f"wfdb {wfdb.__version__}: {equal} files equal to the bit, {len(differing)} different, {refused} refused by nocebo")
sys.exit(bool(differing))
