#!/bin/bash
# SPDX-License-Identifier: MIT
# format.sh [ROOT]: is every .c and .h as .clang-format wants it? The word of clang-format 14 counts, since versions do not
# agree with each other. Where only another one is, it is good enough if it finds nothing; if it does, exit status 77.
# `tests/tools/format.sh . -i` formats instead.
set -u
cd "${1:-.}" || exit 2

program=
for candidate in clang-format-14 clang-format; do
    version=$("$candidate" --version 2>/dev/null) || continue
    program=$candidate
    [[ $version != *"version 14."* ]] || break
done
[ -n "$program" ] || { echo "no clang-format here; install it with: apt install clang-format-14"; exit 77; }

mapfile -t files < <(find proto daemon client tests -name '*.[ch]' | sort)
[ ${#files[@]} -gt 0 ] || { echo "no C files below $PWD"; exit 1; }
if [ "${2:-}" = -i ]; then
    [[ $version = *"version 14."* ]] || { echo "not with $version; apt install clang-format-14"; exit 1; }
    "$program" -i "${files[@]}"
elif "$program" --dry-run -Werror "${files[@]}"; then
    echo "${#files[@]} files are formatted ($version)"
elif [[ $version != *"version 14."* ]]; then
    echo "this is $version, which may differ from 14; what counts is: apt install clang-format-14"
    exit 77
else
    echo "mend it with: tests/tools/format.sh . -i"
    exit 1
fi
