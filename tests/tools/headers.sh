#!/bin/bash
# SPDX-License-Identifier: MIT
# headers.sh [ROOT]: does each header compile alone? With gcc, with clang where there is one, and the installed ones with
# g++ as well. A header that needs its neighbours makes include order folklore. TAP: one claim per compiler.
set -u
cd "${1:-.}" || exit 2

cflags="-D_GNU_SOURCE -DEQD_TESTS -I. -Idaemon -Iclient -Iproto -Itests/unit"
# shellcheck disable=SC2046  # words on purpose
libs=$(pkg-config --cflags libuv msgpack-c libsystemd inih check 2>/dev/null ||
       pkg-config --cflags libuv msgpack libsystemd inih check) || { echo "Bail out! pkg-config"; exit 1; }

# compile COMPILER LANGUAGE STANDARD HEADER...: names those that do not; true if there were any and all do.
compile() {
    local compiler=$1 language=$2 standard=$3 header bad=0
    shift 3
    for header; do
        # shellcheck disable=SC2086
        if ! "$compiler" -std="$standard" -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers \
            -fsyntax-only $cflags $libs -include "$header" -x "$language" /dev/null 2>"$tmp"; then
            echo "# $header:"
            sed 's/^/#   /' "$tmp"
            bad=1
        fi
    done
    [ $# -gt 0 ] && [ $bad = 0 ]
}

n=0
status=0
# claim COMPILER WHAT LANGUAGE STANDARD HEADER...
claim() {
    local compiler=$1 what=$2
    shift 2
    n=$((n + 1))
    if ! command -v "$compiler" >/dev/null; then
        echo "ok $n - $what # SKIP no $compiler here"
    elif compile "$compiler" "$@"; then
        echo "ok $n - $what"
    else
        echo "not ok $n - $what"
        status=1
    fi
}

tmp=$(mktemp) || exit 2
trap 'rm -f "$tmp"' EXIT
mapfile -t headers < <(find proto daemon client tests -name '*.h' | sort)
mapfile -t installed < <(find client/eq.h proto/eq-types.h proto/eq-plugin.h 2>/dev/null)

echo 1..3
claim gcc "each of ${#headers[@]} headers compiles alone with gcc" c gnu17 "${headers[@]}"
claim clang "each of ${#headers[@]} headers compiles alone with clang" c gnu17 "${headers[@]}"
claim g++ "each of ${#installed[@]} installed headers compiles alone as C++" c++ c++17 "${installed[@]}"
exit $status
