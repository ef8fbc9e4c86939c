#!/usr/bin/env bash
# Builds the runner: ascend310_infer/out/main. Does nothing that is already done.
#   LITE_HOME    MindSpore Lite: unpacked release tarball, or the wheel's mindspore_lite folder
#                (default: .lite/mindspore_lite of the project, where scripts/fetch_mindspore_lite.sh puts it)
#   SANITIZE=1   builds out/main_sanitize instead, which checks memory and undefined behaviour while it runs
# Exit codes: 0 built, 2 MindSpore Lite or a tool is missing, else CMake's own.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
default=$(dirname -- "$here")/.lite/mindspore_lite

fail() {
  echo "error: $1" >&2
  exit 2
}

if [[ -z ${LITE_HOME:-} ]]; then
  LITE_HOME=$default
  [[ -d $LITE_HOME ]] ||
    fail "LITE_HOME: is not set. Known: run scripts/fetch_mindspore_lite.sh, or unpack a MindSpore Lite release"
fi
[[ -d $LITE_HOME ]] || fail "LITE_HOME: has to be a folder. Received: $LITE_HOME"
LITE_HOME=$(cd -- "$LITE_HOME" && pwd)
headers=
for folder in runtime/include/api runtime/include/cxx_api include/api include/cxx_api; do
  if [[ -f $LITE_HOME/$folder/model.h ]]; then headers=$folder; fi
done
[[ -n $headers ]] ||
  fail "LITE_HOME: holds no headers of MindSpore Lite, [runtime/]include/api/model.h. Received: $LITE_HOME"
for tool in cmake make c++; do
  command -v "$tool" >/dev/null || fail "$tool: is needed to build the runner and is not installed"
done

name=main
build=$here/build
sanitize=OFF
if [[ ${SANITIZE:-0} != 0 ]]; then
  name=main_sanitize
  build=$here/build/sanitize
  sanitize=ON
fi

# One build at a time: another one waits for it, and finds everything done.
mkdir -p -- "$here/build"
exec 9>"$here/build/.lock"
if command -v flock >/dev/null; then flock 9; fi

# CMake refuses what it remembers of a project that has been moved since.
if [[ -f $build/CMakeCache.txt ]] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$here" "$build/CMakeCache.txt"; then
  rm -- "$build/CMakeCache.txt"
fi
# CMake keeps what it found for another LITE_HOME; a fresh look is cheap.
cmake -S "$here" -B "$build" -ULITE_ROOT -ULITE_LIBRARY -ULITE_CORE -DLITE_HOME="$LITE_HOME" -DBINARY_NAME="$name" \
  -DSANITIZE="$sanitize" -DCMAKE_RUNTIME_OUTPUT_DIRECTORY="$here/out"
cmake --build "$build"
