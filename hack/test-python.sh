#!/usr/bin/env bash
# Runs the unit tests on one version of Python: test-python.sh 3.12 [ARGUMENT OF PYTEST...]
# The interpreter is python3.12 of PATH, or the one of pyenv. Its packages have the same pins as .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$1
shift

# A shim of pyenv is on PATH for each version, and runs only those that are selected.
interpreter=
for candidate in "$(command -v "python$version" || true)" \
	"${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/"python$version"; do
	if "$candidate" -c 'import venv' 2>/dev/null; then
		interpreter=$candidate
		break
	fi
done
if [ -z "$interpreter" ]; then
	echo "python$version: not found; install it, or use the container image python:$version" >&2
	exit 1
fi

venv=build/python-$version
stamp=$venv/.installed
if [ ! -e "$stamp" ] || [ requirements/dev.txt -nt "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
	"$interpreter" -m venv --clear "$venv"
	pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps)
	"${pip[@]}" --requirement requirements/dev.txt
	"${pip[@]}" --no-build-isolation --editable .
	touch "$stamp"
fi
"$venv/bin/python" -c 'import platform; print("release:", platform.python_version(), flush=True)'
# Tests of the repository's files read the record of this run.
"$venv/bin/python" -m pytest tests/unit --ignore=tests/unit/repository "$@"
