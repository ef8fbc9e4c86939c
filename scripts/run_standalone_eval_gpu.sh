#!/usr/bin/env bash
# Evaluates a ViT checkpoint on one GPU: output in ./eval.log.
# DEVICE_TARGET=CPU runs it on the CPU. Further arguments go to eval.py, such as --batch_size 64.
set -euo pipefail

if [[ $# -lt 3 ]]; then
  echo "Usage: bash ./scripts/run_standalone_eval_gpu.sh [DATASET_NAME] [DEVICE_ID] [CKPT_PATH]" >&2
  exit 1
fi
# shellcheck source=scripts/run_logged.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/run_logged.sh"

config=$(config_of_dataset "$1") device=$2 checkpoint=$3
shift 3
echo "log: eval.log"
run_logged eval.log "$python" "$project/eval.py" --config "$config" --pretrained "$checkpoint" \
  --device_id "$device" --device_target "${DEVICE_TARGET:-GPU}" "$@"
grep '=> eval results' eval.log | tail -n 1
