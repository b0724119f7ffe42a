#!/usr/bin/env bash
# Fine-tune outside the pipeline, from one JSON file:
#
#     ./run_training.sh config/train_config.json
#     ./run_training.sh --dry-run config/train_config.json    # one step, nothing is saved
#
# NPROC_PER_NODE processes run on this machine (default: one per GPU, or one).  Several
# machines: set NNODES, NODE_RANK and MASTER_ADDR, and MASTER_PORT if 29500 is taken.
set -euo pipefail

option=()
if [[ ${1:-} == --dry-run ]]; then
    option=("$1")
    shift
fi
if [[ $# -ne 1 || ! -f "$1" ]]; then
    echo "usage: ./run_training.sh [--dry-run] config/train_config.json" >&2
    exit 2
fi
config=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")"
if [[ -x .venv/bin/torchrun ]]; then
    PATH="$PWD/.venv/bin:$PATH"
elif ! command -v torchrun >/dev/null; then
    echo "torchrun is not installed; run 'make setup' first" >&2
    exit 2
fi

gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
nproc_per_node=${NPROC_PER_NODE:-$((gpus > 0 ? gpus : 1))}
threads=$(($(nproc) / nproc_per_node))

# Two waiting threads that spin take the cores from the two that work.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
export TOKENIZERS_PARALLELISM=false DO_NOT_TRACK=true

# A wrong key is one sentence and exit code 2, not a traceback of every process.
python -m ovis_model.training --dump-config "$config" >/dev/null

exec torchrun \
    --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "$nproc_per_node" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}" \
    -m ovis_model.training "${option[@]}" "$config"
