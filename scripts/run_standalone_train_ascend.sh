#!/usr/bin/env bash
# Trains on one device: output in ./train_standalone/{env.log,log.txt,ckpt_0}. Started again, it goes on where it ended.
# DEVICE_TARGET=CPU runs it on the CPU. Further arguments go to train.py, such as --epochs 10.
set -euo pipefail

if [[ $# -lt 2 ]]; then
  echo "Usage: bash ./scripts/run_standalone_train_ascend.sh [DEVICE_ID] [CONFIG_PATH]" >&2
  exit 1
fi
# shellcheck source=scripts/run_logged.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/run_logged.sh"

export DEVICE_ID=$1 RANK_ID=0 RANK_SIZE=1 DEVICE_NUM=1
config=$(config_of_dataset "$2")
shift 2
mkdir -p train_standalone
write_env_log train_standalone/env.log
echo "start training for device id $DEVICE_ID"
echo "log: train_standalone/log.txt"
run_logged train_standalone/log.txt "$python" "$project/train.py" --config "$config" --device_id "$DEVICE_ID" \
  --device_target "${DEVICE_TARGET:-Ascend}" --output_dir train_standalone "$@"
