#!/usr/bin/env bash
# Repeats the training of this model from a data folder that tools/lay_out_data.py made (docs/formats.md, "Data folder").
#
#   models/erank-135m/train.sh DATA [OUT]     OUT: where it works (default: $ERANK_CACHE/erank-135m)
#
# Called again it goes on where it stopped. Needs `make build`, and a Python ($PYTHON, default python3) with torch,
# transformers and gguf for the labels alone. At the end OUT/model is the trained folder; copy its
# adapter_config.json, adapter_model.safetensors and erank.json here to make it the default model.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
cd "$(dirname "$0")/../.."
data=$1
out=${2:-${ERANK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/erank}/erank-135m}
python=${PYTHON:-python3}
mkdir -p "$out"

if [ ! -e "$out/pairs.jsonl" ]; then
  tools/fetch_teachers.py
  "$python" tools/label_pairs.py "$data" "$out/pairs.jsonl"
fi
if [ ! -e "$out/model/adapter_model.safetensors" ]; then
  build/erank train sft --config models/erank-135m/train.toml --data "$out/pairs.jsonl" --out "$out/model" \
    --validation "$data/dl19/validation.jsonl" --validation-qrels "$data/dl19/qrels/dev.tsv" --resume
fi
echo "$out/model is trained; measure it: tools/measure_model.py $data $out/measured --model $out/model"
