#!/usr/bin/env python3
"""Writes tests/golden/rows.parquet, bytes.parquet and rows.jsonl: rows of every kind that Hugging Face's collections hold, and the
JSON lines that erank is to read of them.

Run by hand with a Python that has pyarrow: tools/make_parquet_golden.py
"""
import datetime
import decimal
import json
import pathlib

import pyarrow
import pyarrow.parquet

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/golden"


def main():
    rows = []
    for i in range(300):
        rows.append({
            "_id": f"d{i}",
            "text": f"Text {i} \u00e4\u6f22\U0001f35e \"quoted\"\nline two " + "word " * (i % 7),
            "kind": None if i == 2 else ("web", "book")[i % 2],
            "gold_ids": None if i == 7 else [f"d{j}" for j in range(i % 4)],
            "number": (-1) ** i * (1 << 40) + i,
            "small": i % 200,
            "score": i / 3,
            "single": i / 4,
            "flag": i % 3 == 0,
            "where": None if i == 5 else {"page": i, "names": ["a", None]},
            "weights": [("x", i), ("y", None)],
            "pair": [i, i + 1],
            "bytes": f"b{i}".encode(),
            "price": decimal.Decimal(i) / 4,
        })
    schema = pyarrow.schema({
        "_id": pyarrow.string(), "text": pyarrow.large_string(),
        "kind": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "gold_ids": pyarrow.list_(pyarrow.string()), "number": pyarrow.int64(), "small": pyarrow.uint8(),
        "score": pyarrow.float64(), "single": pyarrow.float32(), "flag": pyarrow.bool_(),
        "where": pyarrow.struct({"page": pyarrow.int32(), "names": pyarrow.list_(pyarrow.string())}),
        "weights": pyarrow.map_(pyarrow.string(), pyarrow.int64()), "pair": pyarrow.list_(pyarrow.int16(), 2), "bytes": pyarrow.binary(),
        "price": pyarrow.decimal128(9, 2),
        "day": pyarrow.date32()})
    days = [{"day": datetime.date(2026, 1, 1 + i % 28)} for i in range(len(rows))]
    table = pyarrow.Table.from_pylist([{**row, **day} for row, day in zip(rows, days)], schema=schema)
    pyarrow.parquet.write_table(table, OUT / "rows.parquet", compression="zstd", row_group_size=80)
    bad = pyarrow.table({"_id": pyarrow.array(["a", "b"]), "raw": pyarrow.array([b"x", b"\xff"], pyarrow.binary())})
    pyarrow.parquet.write_table(bad, OUT / "bytes.parquet")
    with open(OUT / "rows.jsonl", "w", encoding="utf-8") as file:
        for row, day in zip(rows, days):
            line = {**row, "weights": dict(row["weights"]), "bytes": row["bytes"].decode(), "price": f"{row['price']:.2f}",
                    "day": day["day"].isoformat()}
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


main()
