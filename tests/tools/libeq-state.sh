#!/bin/sh
# SPDX-License-Identifier: MIT
# libeq-state.sh LIBRARY: libeq keeps nothing outside of its handles: what can be written to in it is the compiler's alone.
# With no global state two users of it in one process, such as a plugin and its host, cannot get in each other's way.
set -eu
found=$(objdump -t "$1" | awk '/ \.(data|bss|tdata|tbss|data\.rel|data\.rel\.local)\t/ { print $NF }' |
    grep -vxE 'completed\.0|__dso_handle|__TMC_END__|\.(data|bss)' || true)
objdump -t "$1" | grep -q __dso_handle || { echo "$1 has no symbols: it cannot be told what is in it"; exit 77; }
[ -z "$found" ] || { printf 'libeq has global state: %s\n' "$found"; exit 1; }
size=$(readelf -SW "$1" | sed 's/^ *\[ *[0-9]*\] *//' | awk '$1 ~ /^\.(data|bss|tdata|tbss)$/ { print $1, $5 }')
printf '%s\n' "$size" | while read -r name hex; do # of what has no symbol, such as arrays of functions
    [ $((0x$hex)) -le 16 ] || { echo "libeq has $((0x$hex)) bytes in $name"; exit 1; }
done
echo "what libeq can write to is the compiler's"
