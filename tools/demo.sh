#!/usr/bin/env bash
# The main job: train a one-step generative model, measure it, export it, and
# run the export in plain TensorFlow. Works alone on a machine with Python
# 3.11 or later. Extra arguments go to the recipe: tools/demo.sh --seed=1
set -euo pipefail
cd "$(dirname "$0")/.."
out=${DEMO_OUT:-out/demo}
venv=${DEMO_VENV:-.venv-demo}
export KERAS_BACKEND=${KERAS_BACKEND:-jax} TF_CPP_MIN_LOG_LEVEL=3

if [ ! -f "$venv/.ready" ]; then
  echo "Installing into $venv (CPU builds of JAX and TensorFlow) ..."
  "${PYTHON:-python3.11}" -m venv "$venv"
  # Errors alone: no notices and no warnings of pip.
  install=("$venv/bin/python" -m pip install -qq --disable-pip-version-check)
  "${install[@]}" --upgrade pip
  "${install[@]}" tensorflow-cpu -e '.[jax,recipes]'
  if [ "$KERAS_BACKEND" = torch ]; then
    "${install[@]}" torch==2.13.0
  fi
  touch "$venv/.ready"
fi

"$venv/bin/python" recipes/checkerboard.py --out="$out" "$@"
"$venv/bin/python" tools/check_saved_model.py "$out/lsd"
