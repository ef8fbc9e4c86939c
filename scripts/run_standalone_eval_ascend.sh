#!/usr/bin/env bash
# Evaluates a ViT checkpoint on CIFAR-10, on device 0: output in ./eval.log.
# DEVICE_TARGET=CPU runs it on the CPU. Further arguments go to eval.py, such as --batch_size 64.
set -euo pipefail

if [[ $# -lt 1 ]]; then
  echo "Usage: bash ./scripts/run_standalone_eval_ascend.sh [CKPT_PATH]" >&2
  exit 1
fi
# shellcheck source=scripts/run_logged.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/run_logged.sh"

checkpoint=$1
shift
echo "log: eval.log"
run_logged eval.log "$python" "$project/eval.py" --config "$(config_of_dataset cifar10)" --pretrained "$checkpoint" \
  --device_target "${DEVICE_TARGET:-Ascend}" "$@"
grep '=> eval results' eval.log | tail -n 1
