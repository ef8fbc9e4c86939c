# shellcheck shell=bash
# Sourced by the other scripts: where the project is, which Python, and one way to run a logged command.

project=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# The project's own environment if `make` has made it, else the caller's Python.
python=$project/.venv/bin/python
[[ -x $python ]] || python=$(command -v python3 || command -v python)

# The variables that decide where a run computes, and no others: an environment holds secrets too.
write_env_log() {
  env | grep -E '^(DEVICE_ID|DEVICE_NUM|DEVICE_TARGET|RANK_ID|RANK_SIZE|RANK_TABLE_FILE|MS_[A-Z_]+|GLOG_v|OMP_NUM_THREADS|LITE_HOME|ASCEND_[A-Z_]+|LD_LIBRARY_PATH|PYTHONPATH|PATH)=' |
    sort >"$1" || true
}

# config_of_dataset NAME: the YAML that ViT's scripts mean by a data set's name; a path to a YAML stays what it is.
config_of_dataset() {
  if [[ ${1,,} == cifar10 ]]; then
    echo "$project/configs/vit_base_cifar10.yaml"
  else
    echo "$1"
  fi
}

# run_logged LOG COMMAND...: append the command's output to LOG, wait for it, pass signals and its exit code on.
run_logged() {
  local log=$1 status=0 child before
  shift
  touch -- "$log"
  before=$(wc -c <"$log")
  "$@" >>"$log" 2>&1 &
  child=$!
  trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT HUP
  wait "$child" || status=$?
  # A signal ends `wait` before the command has ended.
  while kill -0 "$child" 2>/dev/null; do
    status=0
    wait "$child" || status=$?
  done
  trap - TERM INT HUP
  if [[ $status -ne 0 ]]; then
    # The reasons alone, if the command gives any.
    tail -c "+$((before + 1))" -- "$log" | { grep -a '^error:' || tail -n 5 -- "$log"; } >&2
  fi
  return "$status"
}
