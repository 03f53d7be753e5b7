#!/usr/bin/env python3
"""Prints rows of a GGUF file's tensors as gguf dequantises them, for a test to compare with.

dequantize_rows.py FILE.gguf OUT: for every tensor its first, middle and last row, each written as the line
"NAME ROW COUNT\n" and COUNT little-endian floats.
"""

import sys

import gguf
import numpy as np


def main() -> None:
    with open(sys.argv[2], "wb") as out:
        for tensor in gguf.GGUFReader(sys.argv[1]).tensors:
            data = tensor.data.reshape(-1, tensor.data.shape[-1])
            for row in sorted({0, len(data) // 2, len(data) - 1}):
                values = gguf.quants.dequantize(data[row:row + 1], tensor.tensor_type)
                out.write(f"{tensor.name} {row} {values.size}\n".encode())
                out.write(values.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
