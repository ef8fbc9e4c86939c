#!/usr/bin/env bash
# Trains ViT on several GPUs of this machine, in LOGS_CKPT_DIR: train.log of rank 0, rankN of each, rank0/ckpt_0.
# DEVICE_TARGET=CPU runs it on the CPU. Further arguments go to train.py, such as --epochs 10.
set -euo pipefail

if [[ $# -lt 4 ]]; then
  echo "Usage: bash ./scripts/run_distribute_train_gpu.sh [DATASET_NAME] [DEVICE_NUM] [LR_INIT] [LOGS_CKPT_DIR]" >&2
  exit 1
fi
# shellcheck source=scripts/run_logged.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/run_logged.sh"

config=$(config_of_dataset "$1") devices=$2 rate=$3 folder=$4
shift 4
mkdir -p -- "$folder/rank0"
# The zoo's name for it; a log of a run on one device stays.
[[ -e $folder/train.log ]] || ln -sfn rank0/log.txt "$folder/train.log"
exec "$python" "$project/distribute.py" --device_num "$devices" --log_folder "$folder/rank" "$project/train.py" \
  --config "$config" --lr_init "$rate" --device_target "${DEVICE_TARGET:-GPU}" "$@"
