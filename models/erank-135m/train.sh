#!/usr/bin/env bash
# Repeats the training of this model from a data folder that tools/lay_out_data.py made (docs/formats.md, "Data folder").
#
#   models/erank-135m/train.sh DATA [OUT]     OUT: where it works (default: $ERANK_CACHE/erank-135m)
#
# DEVICE=cuda ERANK=build-cuda/erank trains on a GPU, as this adapter was; on 2 cores it takes some 29 hours. Called
# again it goes on where it stopped. Needs `make build`, and for the labels a Python ($PYTHON, default python3) with
# torch, transformers and gguf. At the end OUT/scores is the trained folder; copy its adapter_config.json,
# adapter_model.safetensors and erank.json here to make it the default model.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
cd "$(dirname "$0")/../.."
data=$1
out=${2:-${ERANK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/erank}/erank-135m}
erank=${ERANK:-build/erank}
device=(--device "${DEVICE:-cpu}")
[ "${device[1]}" = cpu ] || device+=(--max-pass-tokens 32768)
mkdir -p "$out"

train() {  # NAME OPTIONS...: the stage of NAME.toml, from OUT/NAME.jsonl into OUT/NAME
  local stage=$1
  shift
  [ ! -e "$out/$stage/adapter_model.safetensors" ] || return 0
  "$erank" train sft --config "models/erank-135m/$stage.toml" --data "$out/$stage.jsonl" --out "$out/$stage" \
    --validation "$data/dl19/validation.jsonl" --validation-qrels "$data/dl19/qrels/dev.tsv" "${device[@]}" --resume "$@"
}
if [ ! -e "$out/scores.jsonl" ]; then
  tools/fetch_teachers.py
  "${PYTHON:-python3}" tools/label_pairs.py "$data" "$out"
fi
train order
train thoughts --model "$out/order"
train scores --model "$out/thoughts"
echo "$out/scores is trained; measure it: tools/measure_model.py $data $out/measured --model $out/scores"
