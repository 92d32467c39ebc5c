#!/bin/bash
# SPDX-License-Identifier: MIT
# format.sh [ROOT]: is every .c and .h as .clang-format wants it? Exit status 77 without clang-format 14, since other
# versions do not agree with it. `tests/tools/format.sh . -i` formats instead.
set -u
cd "${1:-.}" || exit 2

for program in clang-format-14 clang-format; do
    case $("$program" --version 2>/dev/null) in
        *"version 14."*) break ;;
        *) program= ;;
    esac
done
[ -n "$program" ] || { echo "no clang-format 14 here; install it with: apt install clang-format-14"; exit 77; }

mapfile -t files < <(find proto daemon client tests -name '*.[ch]' | sort)
[ ${#files[@]} -gt 0 ] || { echo "no C files below $PWD"; exit 1; }
if [ "${2:-}" = -i ]; then
    "$program" -i "${files[@]}"
elif "$program" --dry-run -Werror "${files[@]}"; then
    echo "${#files[@]} files are formatted"
else
    echo "mend it with: tests/tools/format.sh . -i"
    exit 1
fi
