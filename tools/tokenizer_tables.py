#!/usr/bin/env python3
"""Writes erank/text/split_tables.cpp: where the Unicode tables behind Hugging Face's tokenizers differ from
those of our libraries (PCRE2 10.42: Unicode 14; utf8proc 2.8: Unicode 15).

Needs `tokenizers` and a Python whose unicodedata is Unicode 14 (3.11), and utf8proc's shared library.
Usage: tokenizer_tables.py > erank/text/split_tables.cpp
"""
import ctypes
import ctypes.util
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

assert unicodedata.unidata_version == "14.0.0"
CODE_POINTS = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp".split()


def matching(pattern):
    """The code points that a pattern of one character matches."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    out = set()
    for i in range(0, len(CODE_POINTS), 4096):
        block = CODE_POINTS[i : i + 4096]
        left = {ch for piece, _ in split.pre_tokenize_str("".join(map(chr, block))) for ch in piece}
        out.update(c for c in block if chr(c) not in left)
    return out


def rust_numeric():
    digits = pre_tokenizers.Digits(individual_digits=True)
    out = set()
    for i in range(0, len(CODE_POINTS), 4096):
        text = "".join("a" + chr(c) for c in CODE_POINTS[i : i + 4096]) + "a"
        out.update(ord(p) for p, _ in digits.pre_tokenize_str(text) if len(p) == 1 and p != "a")
    return out


def starters():
    """Code points that utf8proc reorders or composes and the reference's older NFC leaves alone."""
    library = ctypes.CDLL(ctypes.util.find_library("utf8proc"))
    library.utf8proc_NFC.restype = ctypes.c_void_p
    library.utf8proc_NFC.argtypes = [ctypes.c_char_p]
    libc = ctypes.CDLL(None)
    libc.free.argtypes = [ctypes.c_void_p]
    nfc = normalizers.NFC()

    def ours(text):
        pointer = library.utf8proc_NFC(text.encode())
        value = ctypes.string_at(pointer).decode()
        libc.free(pointer)
        return value

    out = set()
    for c in CODE_POINTS:
        probes = ("a\u0301" + chr(c) + "\u0323" + chr(c) + "b", "q\u0345" + chr(c) + "q")
        if any(ours(probe) != nfc.normalize_str(probe) for probe in probes):
            out.add(c)
    for c in CODE_POINTS:  # composites: their second part must not compose
        parts = unicodedata.normalize("NFD", chr(c))
        if len(parts) >= 2 and ours(parts) != nfc.normalize_str(parts):
            out.add(ord(parts[-1]))
    return out


def ranges(code_points):
    out = []
    for c in sorted(code_points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def table(name, rows, kind):
    print(f"const std::vector<{kind}>& {name}() {{\n  static const std::vector<{kind}> ranges = {{")
    print(",\n".join("      {" + row + "}" for row in rows) + "};\n  return ranges;\n}\n")


def main():
    categories = {name: matching(r"\p{%s}" % name) for name in CATEGORIES}
    later = []
    for name, members in categories.items():
        new = {c for c in members if unicodedata.category(chr(c)) != name}
        later += [(a, b, name) for a, b in ranges(new)]
    later.sort()
    numbers = set().union(*(categories[n] for n in ("Nd", "Nl", "No")))
    word = matching(r"\w") - set().union(*(categories[n] for n in CATEGORIES if n[0] in "LM" or n in ("Nd", "Nl", "Pc")))
    print("// Made by tools/tokenizer_tables.py; do not edit.\n")
    print('#include "erank/text/split_tables.h"\n\nnamespace erank::text {\n')
    table("later_categories", [f'0x{a:x}, 0x{b:x}, "{n}"' for a, b, n in later], "CategoryRange")
    table("later_digits", [f"0x{a:x}, 0x{b:x}" for a, b in ranges(rust_numeric() - numbers)], "CodeRange")
    table("other_word_characters", [f"0x{a:x}, 0x{b:x}" for a, b in ranges(word)], "CodeRange")
    table("unordered_marks", [f"0x{a:x}, 0x{b:x}" for a, b in ranges(starters())], "CodeRange")
    print("}  // namespace erank::text")


main()
