#!/usr/bin/env bash
# Trains on all devices of a rank table; on several servers, call it on each. Rank N writes to ./train_parallelN:
# env.log log.txt, and rank 0 ckpt_0. Started again, it goes on where it ended.
# DEVICE_TARGET=CPU runs it on the CPU. Further arguments go to train.py, such as --epochs 10.
set -euo pipefail

usage() {
  echo "Usage: bash ./scripts/run_distribute_train_ascend.sh [RANK_TABLE_FILE] [CONFIG_PATH]" >&2
  echo "   or: bash ./scripts/run_distribute_train_ascend.sh [RANK_TABLE] [DEVICE_NUM] [RANK_SIZE] [DATASET_NAME]" >&2
  exit 1
}
[[ $# -ge 2 ]] || usage
# shellcheck source=scripts/run_logged.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/run_logged.sh"

job=(--rank_table_file "$1")
if [[ $2 =~ ^[0-9]+$ ]]; then
  # ViT's own form. The table says how many ranks there are in all.
  [[ $# -ge 4 ]] || usage
  job+=(--device_num "$2")
  config=$(config_of_dataset "$4")
  shift 4
else
  config=$2
  shift 2
fi
exec "$python" "$project/distribute.py" "${job[@]}" "$project/train.py" --config "$config" \
  --device_target "${DEVICE_TARGET:-Ascend}" "$@"
