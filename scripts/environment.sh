# Sourced by the other scripts: makes .venv and installs the package with the extras in $1, once for each pyproject.toml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="$1"
python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON." >&2; exit 1; }
installed=".venv/installed-${extras:-base}-$(cksum < pyproject.toml | cut -d' ' -f1)"
if [ ! -e "$installed" ]; then
    [ ! -e .venv/installing ] || rm -rf .venv # an install was interrupted: what is there may be broken
    [ -d .venv ] || "$python" -m venv .venv
    touch .venv/installing
    echo "Installing into .venv (a few minutes the first time) ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${extras:+[$extras]}"
    mv .venv/installing "$installed"
fi
