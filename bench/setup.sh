#!/usr/bin/env bash
# Makes bench/.venv with the peers that the scripts of this folder compare nocebo with.
set -euo pipefail
cd "$(dirname "$0")"
python3 -m venv .venv
.venv/bin/pip install --quiet "setuptools<81" wheel
.venv/bin/pip install --quiet -r requirements.txt
# These pin old versions of what they lean on, or build with a module that newer build environments lack.
.venv/bin/pip install --quiet --no-deps --no-build-isolation -r requirements-attacks.txt
