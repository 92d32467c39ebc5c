#!/bin/sh
# SPDX-License-Identifier: MIT
# abi.sh LIBRARY PROGRAM: prints the ABI of libeq: what it exports with versions, then what PROGRAM (abi.c) says.
set -eu
nm -D --defined-only --with-symbol-versions "$1" | awk '$2 != "A" { print $3 }' | LC_ALL=C sort
"$2"
