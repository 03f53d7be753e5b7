#!/usr/bin/env bash
# Reranks in parts as a Slurm array and joins them.
#
#   examples/scale/slurm.sh PARTS OUT ARGS...
#   examples/scale/slurm.sh 100 erank.trec --beir /data/nfcorpus --run /data/bm25.run --format trec
#
# ARGS are those of `erank rerank` but for --out and --shard; paths must be the same on every node. Options of sbatch
# (partition, time, memory, processors) come from its own variables, e.g. SBATCH_PARTITION and SBATCH_TIMELIMIT, or from
# lines as those below, e.g. --cpus-per-task=16. The job that joins waits for all parts; `erank merge` refuses to join
# when one is missing.
#
# A part that is preempted, or whose node fails, is started again and goes on from its journal. That lies in
# ERANK_WORK, OUT's folder unless that is set; set it to a disk of the node where OUT is on a network file system.
#SBATCH --job-name=erank
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@60
set -euo pipefail

parts=$1 out=$2
shift 2

if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then  # at the terminal: submit
  array=$(sbatch --parsable --array="1-$parts" --output="$out.part%a.log" "$0" "$parts" "$out" "$@")
  merge="erank merge$(printf " $(printf %q "$out").part%s" $(seq "$parts")) --out $(printf %q "$out")"
  join=$(sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes --job-name=erank-merge \
    --output="$out.merge.log" --wrap "$merge")
  echo "array $array, then $join joins its parts into $out"
  exit
fi

part=$out.part$SLURM_ARRAY_TASK_ID
work=${ERANK_WORK:-$(dirname "$out")}/$(basename "$part")
# Without a journal --resume starts at the beginning; of what is complete it says so.
cpus=${SLURM_CPUS_PER_TASK:-1}
srun --cpus-per-task "$cpus" erank rerank "$@" --threads "$cpus" --shard "$SLURM_ARRAY_TASK_ID/$parts" \
  --out "$work" --resume
if ! [ "$work" -ef "$part" ]; then
  cp "$work.made.json" "$part.made.json"
  cp "$work" "$part"
fi
