#!/usr/bin/env bash
# Trains the built-in models on one GPU and measures them: every stage, in calls of at most nine minutes.
#
#   bench/train_builtin_gpu.sh DATA [WORK]      # again and again until it says "done"; three calls were planned for
#
# DATA has pairs.parquet and images.parquet. WORK (.bench/builtin-gpu) keeps stages and checkpoints between calls: a
# stage that is done is not done again, one that the clock stopped goes on from its last checkpoint. The last call
# measures the models. What is to be kept goes to $OUT, or bench/results where that is not set: a JSON file of the
# numbers, the logs, and both models in bf16, each as one archive.
#
# NOT MEASURED: this was written without a GPU at hand and run on a CPU at toy factors only. On a GPU the drawing of
# batches is likely the slowest part, hence one process a core; the factors below are a guess at 30 minutes.
#
# Environment: STEPS BATCH RATE (factors of the CPU's recipe), WORKERS, MINUTES of one call, DEVICE, SEED, PYTHON, ONLY
# (trials to measure), QUICK=1 (a tenth of their queries).
# Exit codes: 0 done; 75 time is over, call again; else what failed.
set -euo pipefail

data=${1:?usage: bench/train_builtin_gpu.sh DATA [WORK]}
work=${2:-.bench/builtin-gpu}
out=${OUT:-bench/results}
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
cores=$(nproc)
workers=${WORKERS:-$((cores > 2 ? cores - 1 : 1))}
seconds=$(awk "BEGIN { print int(60 * ${MINUTES:-9}) }")
begin=$SECONDS

left() { echo $((seconds - (SECONDS - begin))); }
sightline() { timeout --foreground --signal=INT --kill-after=20 "$(($(left) - 25))" "$python" -m sightline "$@"; }
over() { # the exit code of a command that the clock stopped: 124 of timeout, 130 of Ctrl-C, 137 of a kill
    case $1 in
    124 | 130 | 137) echo "time is over after $((SECONDS - begin)) s; call again to go on" && exit 75 ;;
    *) exit "$1" ;;
    esac
}

for name in pairs images; do
    [[ -f $data/$name.parquet ]] || { echo "$data holds no $name.parquet" >&2 && exit 2; }
done
"$python" - "$device" <<'PY'
import sys
import torch

device = torch.device(sys.argv[1])
if device.type == "cuda" and not torch.cuda.is_available():
    sys.exit("torch sees no CUDA device; DEVICE=cpu tries the script itself")
print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if device.type == 'cuda' else device}")
PY

mkdir -p "$work" "$out"
sightline train builtin --data "$data" --out "$work" --device "$device" --workers "$workers" --seed "${SEED:-0}" \
    --steps "${STEPS:-2}" --batch "${BATCH:-4}" --rate "${RATE:-1.4}" --ship "$work/bf16" --json || over $?
echo "trained after $((SECONDS - begin)) s of this call"

for role in embedder reranker; do
    tar -C "$work/bf16" -czf "$out/builtin-$role.tar.gz" "$role"
done
tar -C "$work" -czf "$out/builtin-logs.tar.gz" $(cd "$work" && ls -d ./*/log.csv)
(($(left) > 60)) || over 124
sightline train evaluate-builtin --data "$data" --embedder "$work/bf16/embedder" --reranker "$work/bf16/reranker" \
    --device "$device" --json "$out/builtin-gpu.json" ${ONLY:+--only "$ONLY"} ${QUICK:+--quick} || over $?
echo "done: $out/builtin-gpu.json, $out/builtin-embedder.tar.gz, $out/builtin-reranker.tar.gz"
