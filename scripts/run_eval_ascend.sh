#!/usr/bin/env bash
# Evaluates a checkpoint on one device: output in ./evaluation_ascend/{env.log,eval.log}.
# DEVICE_TARGET=CPU runs it on the CPU. Further arguments go to eval.py, such as --batch_size 64.
set -euo pipefail

if [[ $# -lt 3 ]]; then
  echo "Usage: bash ./scripts/run_eval_ascend.sh [DEVICE_ID] [CONFIG_PATH] [CHECKPOINT_PATH]" >&2
  exit 1
fi
# shellcheck source=scripts/run_logged.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/run_logged.sh"

export DEVICE_ID=$1 RANK_ID=0 RANK_SIZE=1 DEVICE_NUM=1
config=$2 checkpoint=$3
shift 3
mkdir -p evaluation_ascend
write_env_log evaluation_ascend/env.log
echo "start training for device id $DEVICE_ID"
echo "log: evaluation_ascend/eval.log"
run_logged evaluation_ascend/eval.log "$python" "$project/eval.py" --config "$config" --pretrained "$checkpoint" \
  --device_id "$DEVICE_ID" --device_target "${DEVICE_TARGET:-Ascend}" "$@"
grep '=> eval results' evaluation_ascend/eval.log | tail -n 1
