#!/usr/bin/env bash
# Fast tests with the oldest, or the newest, versions that pyproject.toml
# allows, in an environment of their own:
#
#     tools/versions.sh oldest
#     PYTHON=python3.13 BACKENDS="jax tensorflow" tools/versions.sh newest
#     BACKENDS=jax tools/versions.sh alone      # no other backend is installed
#
# pip takes PyTorch's wheels from where it is told to; on Linux those of PyPI
# bring CUDA.
set -euo pipefail
cd "$(dirname "$0")/.."
which=${1:?oldest, newest or alone}
shift
backends=${BACKENDS:-jax tensorflow torch}
venv=${VERSIONS_VENV:-.venv-$which}
export TF_CPP_MIN_LOG_LEVEL=3 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

[ -d "$venv" ] || "${PYTHON:-python3.11}" -m venv "$venv"
# Not `mapfile < <(...)`, which hides a failure.
wanted=$("$venv/bin/python" - "$which" $backends <<'PYTHON'
import re
import sys
import tomllib

which, *backends = sys.argv[1:]
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
wanted = list(project["dependencies"])
for backend in backends:
    wanted += project["optional-dependencies"][backend]
for each in wanted:
    # The whole of TensorFlow would bring CUDA to some machines.
    each = re.sub(r"^tensorflow\b", "tensorflow-cpu", each)
    if which == "oldest":
        each = re.sub(r">=([\w.]+),<[\w.]+", r"==\1", each)
    print(each)
PYTHON
)
"$venv/bin/python" -m pip install -q --upgrade $wanted pytest scipy
"$venv/bin/python" -m pip freeze | grep -i -E \
  '^(keras|jax|tensorflow|tensorflow_cpu|torch|numpy|h5py|ml_dtypes)=='

failed=0
for backend in $backends; do
  echo "== $which, $backend"
  PYTHONPATH=. KERAS_BACKEND=$backend "$venv/bin/python" -m pytest \
    -m "not slow" tests/interpolants tests/ops tests/interfaces/oracle_test.py \
    tests/samplers/samplers_test.py tests/presets/preset_test.py "$@" ||
    failed=1
done
exit $failed
