#!/usr/bin/env bash
# Repeats the training of this model from a data folder that tools/lay_out_data.py made (docs/formats.md, "Data folder").
#
#   models/erank-135m/train.sh DATA [OUT]     OUT: where it works (default: $ERANK_CACHE/erank-135m)
#
# Called again it goes on where it stopped. Needs `make build`, and a Python ($PYTHON, default python3) with torch,
# transformers and gguf for the labels alone. At the end OUT/near is the trained folder; copy its
# adapter_config.json, adapter_model.safetensors and erank.json here to make it the default model.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
cd "$(dirname "$0")/../.."
data=$1
out=${2:-${ERANK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/erank}/erank-135m}
python=${PYTHON:-python3}
mkdir -p "$out"

label() {  # NAME OPTIONS...: OUT/NAME.jsonl, the pairs of that stage
  local stage=$1
  shift
  [ ! -e "$out/$stage.jsonl" ] || return 0
  tools/fetch_teachers.py
  "$python" tools/label_pairs.py "$data" "$out/$stage.jsonl" "$@"
}
train() {  # NAME OPTIONS...: the stage of NAME.toml, from OUT/NAME.jsonl into OUT/NAME
  local stage=$1
  shift
  [ ! -e "$out/$stage/adapter_model.safetensors" ] || return 0
  build/erank train sft --config "models/erank-135m/$stage.toml" --data "$out/$stage.jsonl" --out "$out/$stage" \
    --validation "$data/dl19/validation.jsonl" --validation-qrels "$data/dl19/qrels/dev.tsv" --resume "$@"
}
label order --place 1
label thoughts --place 0.5
label scores --place 0
label near --place 0 --within 100
train order
train thoughts --model "$out/order"
train scores --model "$out/thoughts"
train near --model "$out/scores"
echo "$out/near is trained; measure it: tools/measure_model.py $data $out/measured --model $out/near"
