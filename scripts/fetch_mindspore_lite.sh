#!/usr/bin/env bash
# Fetches the C++ library that the runner is built against: the MindSpore Lite wheel, unpacked at .lite/mindspore_lite
# of the project. Nothing is installed: the wheel is made for Python 3.7, and only its headers and libraries are used.
# Does nothing if it is there already, or if LITE_HOME names another MindSpore Lite.
# Exit codes: 0 it is there, 1 it is not: no wheel for this platform, no network, no space, or another content.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
project=$(dirname -- "$here")
version=2.0.0
lite=$project/.lite
target=$lite/mindspore_lite

fail() {
  echo "error: mindspore-lite: $1" >&2
  exit 1
}

if [[ -n ${LITE_HOME:-} ]]; then
  echo "LITE_HOME is set, nothing to fetch: $LITE_HOME"
  exit 0
fi
if [[ -d $target ]]; then
  echo "MindSpore Lite is at $target"
  exit 0
fi

# The content is pinned, so that a build does not depend on what an index serves today.
case $(uname -s)-$(uname -m) in
  Linux-x86_64)
    platform=manylinux1_x86_64
    sha256=199cd0605cc985b88eddb273db9dfe9000a585ba10ca2292b6b36ebfff07b3ec
    ;;
  Linux-aarch64)
    platform=manylinux2014_aarch64
    sha256=9006b56a0285833802b4880f34cbce5f94111ef5ca4071d5df5c61e8c2a3a6f7
    ;;
  *)
    known="Linux x86_64, Linux aarch64; LITE_HOME may name a release of it"
    fail "no wheel of it exists for this platform. Received: $(uname -s) $(uname -m). Known: $known"
    ;;
esac

python=$project/.venv/bin/python
[[ -x $python ]] || python=python3
command -v "$python" >/dev/null || fail "needs python3 with pip to be fetched"

mkdir -p -- "$lite" || fail "$lite cannot be created"
# Beside its last place: only within one file system is the last step a rename.
partial=$(mktemp -d -- "$lite/.partial-XXXXXX") || fail "$lite cannot be written"
trap 'find "$partial" -delete' EXIT

echo "Fetching mindspore-lite $version for $platform"
"$python" -m pip download --no-deps --only-binary=:all: --python-version 3.7 --implementation cp \
  --platform "$platform" --disable-pip-version-check --dest "$partial" "mindspore-lite==$version" ||
  fail "cannot be downloaded with pip (see above); LITE_HOME may name a copy that is there"
wheel=$(find "$partial" -maxdepth 1 -name 'mindspore_lite-*.whl')
[[ -n $wheel ]] || fail "pip has downloaded no wheel"
sum='import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())'
received=$("$python" -c "$sum" "$wheel")
[[ $received == "$sha256" ]] || fail "the wheel has to have the sha256 $sha256. Received: $received"

"$python" -m zipfile -e "$wheel" "$partial/unpacked" || fail "the wheel cannot be unpacked in $lite"
# One rename: another process sees the whole folder or none. If one has been faster, its folder is as good.
mv -T -- "$partial/unpacked/mindspore_lite" "$target" 2>/dev/null || [[ -d $target ]] ||
  fail "$target cannot be written"
echo "MindSpore Lite is at $target"
