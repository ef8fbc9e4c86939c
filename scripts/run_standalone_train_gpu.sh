#!/usr/bin/env bash
# Trains ViT on one GPU: output in LOGS_CKPT_DIR/{env.log,train.log,ckpt_0}. Started again, it goes on where it ended.
# DEVICE_TARGET=CPU runs it on the CPU. Further arguments go to train.py, such as --epochs 10.
set -euo pipefail

if [[ $# -lt 4 ]]; then
  echo "Usage: bash ./scripts/run_standalone_train_gpu.sh [DATASET_NAME] [DEVICE_ID] [LR_INIT] [LOGS_CKPT_DIR]" >&2
  exit 1
fi
# shellcheck source=scripts/run_logged.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/run_logged.sh"

config=$(config_of_dataset "$1")
export DEVICE_ID=$2 RANK_ID=0 RANK_SIZE=1 DEVICE_NUM=1
rate=$3 folder=$4
shift 4
mkdir -p -- "$folder"
write_env_log "$folder/env.log"
echo "start training for device id $DEVICE_ID"
echo "log: $folder/train.log"
run_logged "$folder/train.log" "$python" "$project/train.py" --config "$config" --device_id "$DEVICE_ID" \
  --lr_init "$rate" --device_target "${DEVICE_TARGET:-GPU}" --output_dir "$folder" "$@"
