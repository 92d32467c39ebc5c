#!/bin/sh
# SPDX-License-Identifier: MIT
# catalog.sh EQD.CATALOG EVENTS.DEF: does journalctl take the catalog, and show a text for the id of every event?
set -eu
command -v journalctl >/dev/null || { echo "journalctl is missing"; exit 77; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/usr/lib/systemd/catalog" "$root/var/lib/systemd/catalog"
cp "$1" "$root/usr/lib/systemd/catalog/"
journalctl --root="$root" --update-catalog
n=0
for id in $(sed -n 's/^EVENT([A-Z_]*, "[a-z-]*", "\([0-9a-f]*\)".*/\1/p' "$2"); do
    journalctl --root="$root" --dump-catalog "$id" | grep -q '^Subject: eqd: ' || { echo "no text for $id"; exit 1; }
    n=$((n + 1))
done
echo "$n events"
[ "$n" -gt 10 ]
