#!/usr/bin/env bash
# Creates .venv from the lock file that fits this machine. Does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
"$python" - <<'PY' || { echo "bootstrap: needs Python 3.11 (or set PYTHON=/path/to/python3.11)" >&2; exit 2; }
import sys
sys.exit(sys.version_info[:2] != (3, 11))
PY

# ml-metadata and tensorflow-data-validation 1.21 need glibc 2.39; see requirements/.
glibc=$("$python" -c 'import platform; print(platform.libc_ver()[1] or "0")')
if [ "$(printf '%s\n' 2.39 "$glibc" | sort -V | head -n 1)" = 2.39 ]; then
  lock=requirements/lock-glibc-2.39.txt
else
  lock=requirements/lock-older-glibc.txt
fi

"$python" -c 'import ensurepip, venv' 2>/dev/null || {
  echo "bootstrap: this Python cannot make virtual environments; on Debian and Ubuntu install python3-venv" >&2
  exit 2
}

stamp=.venv/.installed
state=$(cat "$lock" setup.py bivrec_tf/version.py | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ]; then
  exit 0
fi

echo "Installing from $lock (glibc $glibc) into .venv ..."
rm -rf .venv
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
# The lock file is the whole truth: it overrides pins that conflict on paper (see requirements/).
# Compiled once and for all: where PYTHONDONTWRITEBYTECODE is set, as in many containers, every
# process would else compile the thousands of modules that it imports.
.venv/bin/uv pip install --quiet --no-deps --compile-bytecode --requirement "$lock"
.venv/bin/uv pip install --quiet --no-deps --editable .

# Importing is not enough: ml-metadata can fail to load its library and still import.
log=$(mktemp)
TF_CPP_MIN_LOG_LEVEL=3 .venv/bin/python - <<'PY' 2>"$log" || { cat "$log" >&2; echo "bootstrap: ml-metadata cannot open a store with $lock" >&2; exit 1; }
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2
config = metadata_store_pb2.ConnectionConfig()
config.fake_database.SetInParent()
metadata_store.MetadataStore(config).get_artifact_types()
PY
rm -f "$log"
echo "$state" > "$stamp"
