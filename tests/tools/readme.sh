#!/bin/bash
# SPDX-License-Identifier: MIT
# readme.sh [ROOT]: does README.md name what the tree has? The packages to build by hand are those of packages.sh, and the
# library of the tests, which meson sets up by default; each folder of tests/ has its word in "The house".
set -u
cd "${1:-.}" || exit 2
# shellcheck source=tests/tools/packages.sh
. tests/tools/packages.sh || exit 2
status=0

lines() {
    printf '%s\n' "$@" | sort
}

read -ra named < <(sed -n 's/^apt install //p' README.md)
differ=$(comm -3 <(lines "${named[@]}") <(lines "${PACKAGES_BUILD[@]}" check))
if [ -n "$differ" ]; then
    echo "README.md: \`apt install\` and PACKAGES_BUILD of tests/tools/packages.sh differ in:" $differ
    status=1
fi

house=$(sed -n '/^tests\//,/^[a-z]*\//p' README.md | sed '1s/^tests\///; $d')
for folder in tests/*/; do
    folder=$(basename "$folder")
    grep -qw "$folder" <<<"$house" && continue
    echo "README.md: the line of tests/ in The house does not say what $folder is"
    status=1
done
[ $status != 0 ] || echo "README.md names the packages and the folders of tests"
exit $status
