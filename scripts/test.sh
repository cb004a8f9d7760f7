#!/usr/bin/env bash
# Lint, types and tests, as CI runs them; further arguments go to pytest. Test files run side by side, in
# TEST_PROCESSES processes (2) of one thread each.
source "$(dirname "$0")/environment.sh" dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile "$@"
