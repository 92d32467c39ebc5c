#!/bin/sh
# SPDX-License-Identifier: MIT
# aliases.sh DIRECTORY PAGE...: links named after the functions in the NAME sections of these pages, in the installed DIRECTORY.
set -eu
case $1 in /*) dir=${DESTDIR:-}$1 ;; *) dir=$MESON_INSTALL_DESTDIR_PREFIX/$1 ;; esac
shift
for page; do
    for function in $(sed -n '/^\.SH NAME/,/^\.SH SYNOPSIS/p' "$page" | grep -oE '^eq_[a-z_]+'); do
        ln -sf "$(basename "$page")" "$dir/$function.3"
    done
done
