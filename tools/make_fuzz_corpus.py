#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets gguf and safetensors: small sound files and files with one fault each.

Run by hand with any Python 3: tools/make_fuzz_corpus.py
"""

import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent.parent / "tests/fuzz/corpus"

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
# ggml's number of each element type, values a block, bytes a block
GGML = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22),
        "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176),
        "Q6_K": (14, 256, 210), "BF16": (30, 1, 2)}


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def value(kind, item):
    return text(item) if kind == STRING else struct.pack("<" + FORMATS[kind], item)


def pair(key, kind, item):
    return text(key) + struct.pack("<I", kind) + value(kind, item)


def array(key, kind, items, count=None):
    head = struct.pack("<IIQ", ARRAY, kind, len(items) if count is None else count)
    return text(key) + head + b"".join(value(kind, item) for item in items)


def tensor(name, dims, kind, offset):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf(pairs, tensors, data, version=3, align=32, num_tensors=None, num_pairs=None):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors) if num_tensors is None else num_tensors,
                                 len(pairs) if num_pairs is None else num_pairs)
    head += b"".join(pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % align) + data


def gguf_seeds():
    scalars = [pair(f"k{kind}", kind, {STRING: "word", F32: 1.5, F64: 0.1, BOOL: True}.get(kind, 7))
               for kind in range(13) if kind != ARRAY]
    arrays = [array("ints", I32, [1, -2]), array("floats", F32, [0.5]), array("words", STRING, ["a", ""]),
              array("flags", BOOL, [True, False]), array("bytes", U8, [1, 2, 3])]
    yield "values", gguf(scalars + arrays, [], b"")
    yield "version2", gguf(scalars[:2], [tensor("t", [2, 3], 0, 0)], bytes(24), version=2)
    tensors, data = [], b""
    for name, (kind, values, size) in GGML.items():
        tensors.append(tensor(name, [values, 2], kind, len(data)))
        data += bytes(2 * size)
        data += bytes(-len(data) % 32)
    yield "every_type", gguf([], tensors, data)
    yield "alignment", gguf([pair("general.alignment", U32, 64)], [tensor("t", [1], 0, 64)], bytes(68), align=64)
    yield "empty_tensor", gguf([], [tensor("t", [0, 4], 0, 0), tensor("s", [], 0, 0)], bytes(4))
    huge = 1 << 63
    yield "huge_counts", gguf([], [], bytes(64), num_tensors=huge, num_pairs=huge)
    yield "huge_array", gguf([array("a", U8, [], huge)], [], bytes(64))
    yield "huge_text", gguf([text("k") + struct.pack("<IQ", STRING, huge)], [], bytes(64))
    yield "huge_shape", gguf([], [tensor("t", [1 << 32, 1 << 32], 0, 0)], bytes(64))
    yield "huge_offset", gguf([], [tensor("t", [1], 0, huge)], bytes(64))
    yield "overlap", gguf([], [tensor("a", [16], 0, 0), tensor("b", [16], 0, 32)], bytes(96))
    yield "nested_array", gguf([text("k") + struct.pack("<IIQIQ", ARRAY, ARRAY, 1, U8, 0)], [], b"")
    yield "twice", gguf([pair("k", U8, 1), pair("k", U8, 2)], [], b"")
    yield "bad_alignment", gguf([pair("general.alignment", U32, 0)], [tensor("t", [1], 0, 0)], bytes(4))
    yield "cut_off", gguf(scalars, [tensor("t", [8], 0, 0)], bytes(31))


def safetensors(header, data):
    if not isinstance(header, str):
        header = json.dumps(header, separators=(",", ":"))
    return struct.pack("<Q", len(header)) + header.encode() + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_seeds():
    yield "empty", safetensors({}, b"")
    every = {"__metadata__": {"format": "pt"}}
    end = 0
    for dtype, size in {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1}.items():
        every[dtype] = entry(dtype, [2, 1], end, end + 2 * size)
        end += 2 * size
    yield "every_type", safetensors(every, bytes(end))
    yield "scalar_and_empty", safetensors({"a": entry("F32", [], 0, 4), "b": entry("F32", [0], 4, 4)}, bytes(4))
    yield "null_metadata", safetensors('{"__metadata__":null}   ', b"")
    yield "huge_length", struct.pack("<Q", 1 << 63) + b"{}"
    yield "huge_shape", safetensors({"a": entry("F32", [1 << 32, 1 << 32], 0, 0)}, b"")
    yield "huge_offset", safetensors({"a": entry("F32", [1], 0, 1 << 63)}, bytes(4))
    yield "overlap", safetensors({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, bytes(3))
    yield "hole", safetensors({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, bytes(3))
    yield "wrong_size", safetensors({"a": entry("F32", [2], 0, 4)}, bytes(4))
    yield "wrong_type", safetensors({"a": entry("F8_E4M3", [1], 0, 1)}, bytes(1))
    yield "twice", safetensors('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
                               '"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', bytes(2))
    yield "nested", safetensors('{"a":{"shape":[[[1]]]}}', b"")
    yield "fraction", safetensors('{"a":{"shape":[1.0,-1,1e9]}}', b"")
    yield "escapes", safetensors('{"\\u0061\\ud83d\\ude00":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', bytes(1))


def main():
    for name, seeds in (("gguf", gguf_seeds()), ("safetensors", safetensors_seeds())):
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for seed, data in seeds:
            (folder / seed).write_bytes(data)


if __name__ == "__main__":
    main()
