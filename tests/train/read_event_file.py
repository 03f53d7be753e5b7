"""Reads a TensorBoard event file by the formats' own descriptions and prints an event a line as JSON."""
import json
import struct
import sys


def checksum(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def fields(data):
    """(number, value) of a protobuf message; bytes, integers, or the raw bytes of fixed ones."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(kind) or varint()
        assert at + size <= len(data)
        yield key >> 3, data[at:at + size]
        at += size


data = open(sys.argv[1], "rb").read()
at = 0
while at < len(data):
    size, crc = struct.unpack_from("<QI", data, at)
    assert crc == checksum(data[at:at + 8]), "checksum of a length"
    record = data[at + 12:at + 12 + size]
    assert struct.unpack_from("<I", data, at + 12 + size)[0] == checksum(record), "checksum of a record"
    at += 16 + size
    event = dict(fields(record))
    out = dict(time=struct.unpack("<d", event[1])[0], step=event[2])
    if 3 in event:
        out["version"] = event[3].decode()
    if 7 in event:
        out["session"] = dict(fields(event[7]))[1]
    if 5 in event:
        values = [dict(fields(value)) for _, value in fields(event[5])]
        out["figures"] = {v[1].decode(): struct.unpack("<f", v[2])[0] for v in values}
    print(json.dumps(out))
