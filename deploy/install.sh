#!/usr/bin/env bash
# The steps of the image: a virtual environment with the bridge and exactly the locked packages, not editable.
# Used by the Dockerfile, and by CI in a clean folder, so that they are known to work where no engine runs.
#
#   deploy/install.sh TARGET     TARGET is made, or filled if empty; PYTHON chooses the interpreter
set -euo pipefail

target=${1:?usage: deploy/install.sh TARGET}
source=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

# The wheel is made elsewhere, so that no build tool stays in the target.
"$python" -m venv "$build/venv"
"$build/venv/bin/python" -m pip install --quiet --require-hashes -r "$source/requirements-build.lock"
mkdir "$build/source"
cp -R "$source/pyproject.toml" "$source/README.md" "$source/LICENSE" "$source/bridge" "$build/source/"
"$build/venv/bin/python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$build" "$build/source"

# No pip in it: nothing installs anything there later. (A derived image that must: pip --python TARGET/bin/python install …)
"$python" -m venv --without-pip "$target"
into=("$build/venv/bin/python" -m pip --python "$target/bin/python")
"${into[@]}" install --quiet --require-hashes -r "$source/requirements.lock"
"${into[@]}" install --quiet --no-deps "$build"/meisa_bridge-*.whl
"${into[@]}" check
"$target/bin/python" -m compileall -q "$target/lib" || true   # a start without writing anything
"$target/bin/meisa-bridge" --version
