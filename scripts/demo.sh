#!/usr/bin/env bash
# The main job on the built-in digits: train, evaluate, export, build and run the C++ runner, compare all backends.
# Everything goes to output/demo. Started again, it reuses what is there; interrupted, it goes on.
set -euo pipefail

# shellcheck source=scripts/run_logged.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/run_logged.sh"
cd -- "$project"

arch=cct_2_3x2_32
out=output/demo
best=$out/ckpt_0/best.ckpt
config=(--config configs/cct_2_3x2_digits.yaml --data_url output/digits --output_dir "$out")
# What follows the heading is the whole output but for the line of all settings and the names of decayed weights.
quiet() { grep -v -E '^Namespace\(|^=> (no )?decay '; }
heading() { printf '\n--- %s\n' "$1"; }

heading "1/6 train $arch on 1,437 digits"
"$python" train.py "${config[@]}" | quiet

heading "2/6 evaluate on the 360 held-out digits"
"$python" eval.py "${config[@]}" --pretrained "$best" | quiet

heading "3/6 export"
export_once() { # FILE EXPORT_FLAGS...
  if [[ $1 -nt $best ]]; then
    echo "$1 is there"
  else
    "$python" export.py "${config[@]}" --pretrained "$best" "${@:2}" | quiet
  fi
}
export_once "$out/$arch.mindir"
export_once "$out/${arch}_v1.mindir" --ir_version 1 --file_name "${arch}_v1"
export_once "$out/$arch.onnx" --file_format ONNX

heading "4/6 fetch MindSpore Lite and build the C++ runner"
backends=(--mindir "$out/$arch.mindir" --onnx "$out/$arch.onnx")
if bash scripts/fetch_mindspore_lite.sh; then
  heading "5/6 preprocess, run the C++ runner, count"
  (cd -- "$out" && DEVICE_TARGET=CPU bash "$project/scripts/run_infer_310.sh" "${arch}_v1.mindir" folder "$project/output/digits/val")
  backends+=(--runner)
else
  echo "The C++ runner is left out: its library cannot be had here (see the line above)."
fi

heading "6/6 compare all backends on the 360 held-out digits"
"$python" verify.py "${config[@]}" --pretrained "$best" "${backends[@]}" | quiet
