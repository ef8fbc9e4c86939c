#!/usr/bin/env bash
# Preprocesses images, builds the C++ runner, runs it, prints top-1 and top-5. Everything goes to the current folder:
# preprocess_Result result_Files time_Result, per_class.csv confusion.csv, and build.log infer.log acc.log.
# DATASET_NAME: imagenet2012 or folder (class folders), Cifar10; in any case of its letters.
# DEVICE_TARGET=CPU runs it on the CPU; the MINDIR must then be of IR version 1 (export.py --ir_version 1).
set -euo pipefail

if [[ $# -lt 3 || $# -gt 4 ]]; then
  echo "Usage: bash run_infer_310.sh [MINDIR_PATH] [DATASET_NAME] [DATASET_PATH] [DEVICE_ID]" >&2
  echo "DEVICE_ID is optional, it can be set by environment variable device_id, otherwise the value is zero" >&2
  exit 1
fi
# shellcheck source=scripts/run_logged.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/run_logged.sh"

model=$1 dataset_name=${2,,} dataset_path=$3 device_id=${4:-${device_id:-0}}
target=${DEVICE_TARGET:-Ascend}
echo "mindir name: $model"
echo "dataset name: $2"
echo "dataset path: $dataset_path"
echo "device id: $device_id"

# Before an hour of preprocessing.
if [[ ! -f $model ]]; then
  echo "error: MINDIR_PATH: no such file. Received: $model" >&2
  exit 4
fi
[[ $dataset_name == imagenet ]] && dataset_name=imagenet2012

# stage NAME LOG COMMAND...: run one stage, stop at the first that fails. Logs are of this run alone.
stage() {
  local name=$1 log=$2 status=0
  shift 2
  : >"$log"
  run_logged "$log" "$@" || status=$?
  if [[ $status -ne 0 ]]; then
    echo "$name failed" >&2
    exit "$status"
  fi
}

# The count refuses results of images that are not these; nothing here knows whose they are, so they stay.
refuse_other_results() {
  local result input
  while IFS= read -r -d '' result; do
    input=preprocess_Result/img_data/${result#result_Files/}
    if [[ ! -f ${input%_0.bin}.bin ]]; then
      echo "error: result_Files: holds results of other images, remove it or run in another folder. Received: $result" >&2
      exit 3
    fi
  done < <(find result_Files -name '*_0.bin' -print0 2>/dev/null)
}

info=()
[[ -f ${model%.mindir}.json ]] && info=(--model_info "${model%.mindir}.json")
stage "preprocess dataset" preprocess.log "$python" "$project/preprocess.py" --dataset_name "$dataset_name" \
  --data_path "$dataset_path" "${info[@]}"
grep -h '^warning:' preprocess.log >&2 || true
refuse_other_results
stage "compile app code" build.log bash "$project/ascend310_infer/build.sh"
# The blank is the zoo's.
stage " execute inference" infer.log "$project/ascend310_infer/out/main" --mindir_path "$model" \
  --dataset_name "$dataset_name" --input0_path preprocess_Result/img_data --device_id "$device_id" \
  --device_target "$target"
stage "calculate accuracy" acc.log "$python" "$project/postprocess.py" --dataset_name "$dataset_name" \
  --result_dir ./result_Files --label_file ./preprocess_Result/imagenet_label.json
# What the classes have is in acc.log, per_class.csv and confusion.csv.
grep -E '^(Top[15] acc|after allreduce eval):' acc.log
cat time_Result/test_perform_static.txt
