#!/usr/bin/env bash
# Lint, types and tests, as CI runs them; further arguments go to pytest.
source "$(dirname "$0")/environment.sh" dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
