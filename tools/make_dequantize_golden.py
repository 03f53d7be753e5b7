#!/usr/bin/env python3
"""Writes tests/golden/dequantize.json: random blocks of every GGUF type and the values gguf reads from them.

Run by hand with a Python that has numpy and gguf: tools/make_dequantize_golden.py
"""

import json
import pathlib

import gguf
import numpy as np

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/dequantize.json"
TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]
# Byte offsets of the half floats inside a block.
HALVES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
# Scales that a rounding or conversion mistake would show on: subnormal, smallest, largest, negative.
ODD_SCALES = [5.96e-08, 6.1035e-05, 65504.0, -0.0371]


def main() -> None:
    rng = np.random.default_rng(20240611)
    golden = {}
    for name in TYPES:
        qtype = gguf.GGMLQuantizationType[name]
        block_values, block_bytes = gguf.GGML_QUANT_SIZES[qtype]
        if block_values == 1:
            values = np.concatenate([rng.normal(size=56), [0.0, -0.0, *ODD_SCALES, 1e-6, 3.0]])
            blocks = gguf.quants.quantize(values.astype(np.float32), qtype).view(np.uint8).reshape(1, -1)
        else:
            count = 5 if block_values == 32 else 3
            blocks = rng.integers(0, 256, size=(count, block_bytes), dtype=np.uint8)
            for i, block in enumerate(blocks):
                for at in HALVES[name]:
                    scale = ODD_SCALES[i - 1] if i > 0 else rng.normal() * 0.01
                    block[at:at + 2] = np.array([scale], np.float16).view(np.uint8)
        with np.errstate(over="ignore"):
            values = gguf.quants.dequantize(blocks, qtype).astype("<f4").ravel()
        golden[name] = {"blocks": blocks.tobytes().hex(), "values": values.tobytes().hex()}
    rows = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in golden.items())
    OUT.write_text("{\n" + rows + "\n}\n")


if __name__ == "__main__":
    main()
