#!/usr/bin/env bash
# On a machine with a CUDA GPU and neither network nor this project's packages: builds with the libtorch of its Python,
# checks results on the GPU against those on the CPU and measures, in under 8 minutes.
#
#   tools/core_bundle bundle && bench/gpu.sh bundle OUT.md [ARGUMENTS OF bench/gpu.py]
#
# The folder `bundle` is made where tools/setup has run, and brought along. OUT.md names the card and the date.
set -euo pipefail
[ $# -ge 2 ] && [ "${1#-}" = "$1" ] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
bundle=$(realpath "$1") out=$(realpath "$2")
shift 2
cd "$(dirname "$0")/.."
torch=$(python3 -c 'import os, torch; print(os.path.dirname(torch.__file__))')
generator=()
command -v ninja >/dev/null || generator=(-G "Unix Makefiles")
cmake --preset cuda "${generator[@]}" -DERANK_BUNDLE="$bundle" -DERANK_TORCH="$torch" >/dev/null
log=$(mktemp)
cmake --build --preset cuda --target erank -j "$(nproc)" >"$log" 2>&1 || { tail -60 "$log"; exit 1; }
exec python3 bench/gpu.py --erank build-cuda/erank --out "$out" --seconds $((450 - SECONDS)) "$@"
