#!/bin/bash
# SPDX-License-Identifier: MIT
# guards-test.sh: does each guard catch what it is there for? Each claim plants one offence into a small good tree, in
# which the guards find nothing; the last ones give forged test logs to results.py. TAP.
set -u
tools=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/tools/packages.sh
. "$tools/packages.sh" || exit 2
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
tree=$dir/tree
n=0
status=0

# A good tree, with one header on each floor that the claims below need.
plant() {
    local floor
    rm -rf "$tree"
    mkdir -p "$tree"/{man,proto,client/eqctl,tests/unit,tests/tools} "$tree"/daemon/{base,engine,store,spawner,executor,manager,server}
    cp "$tools/../../.clang-format" "$tree"
    for floor in base engine store spawner executor manager server; do
        printf '#pragma once\nint %s(void);\n' "$floor" >"$tree/daemon/$floor/$floor.h"
    done
    printf '#pragma once\n#include "eq-types.h"\n' >"$tree/proto/codec.h"
    printf '#pragma once\n' >"$tree/proto/eq-types.h"
    printf '#pragma once\n#include "eq-types.h"\nint eq_go(int where);\n' >"$tree/client/eq.h"
    printf 'LIBEQ_0 {\nglobal:\n        eq_go;\nlocal:\n        *;\n};\n' >"$tree/client/libeq.syms"
    page 'int eq_go(int where);' 'goes.' >"$tree/man/libeq-way.3"
    printf '#include "engine/engine.h"\n\n#include <errno.h>\n\n#include "base/base.h"\n#include "proto/codec.h"\n' \
        >"$tree/daemon/engine/engine.c"
    printf '#include <eq.h>\n' >"$tree/client/example.c" # as users do
    cp "$tools/packages.sh" "$tree/tests/tools"
    readme "${PACKAGES_BUILD[*]} check" "unit, tools" >"$tree/README.md"
}

# page PROTOTYPE TEXT: a page of libeq.
page() {
    printf '%s\n' '.SH NAME' 'eq_go \- go' '.SH SYNOPSIS' "$1" '.SH DESCRIPTION' '.TP' '.BR eq_go ()' "$2" '.SH "THREADS AND BLOCKING"' 'None.'
}

# readme PACKAGES FOLDERS-OF-TESTS
readme() {
    printf '%s\n' "apt install $1" "tests/  $2" "docs/  notes"
}

# claim WHAT GUARD [PATH TEXT]: with TEXT in PATH the guard fails and names PATH; without them it passes.
claim() {
    local what=$1 guard=$2 rc ok=
    n=$((n + 1))
    plant
    [ $# -lt 4 ] || printf '%b' "$4" >"$tree/$3"
    "$tools/$guard" "$tree" >"$dir/out" 2>&1
    rc=$?
    if [ $rc = 77 ]; then
        echo "ok $n - $what # SKIP $(tail -n 1 "$dir/out")"
        return
    fi
    if [ $# -lt 4 ]; then
        [ $rc != 0 ] || ok=1
    else
        [ $rc != 1 ] || ! grep -qF "$3" "$dir/out" || ok=1
    fi
    report "$what" "$ok" "exit status $rc"
}

report() {
    if [ -n "$2" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        echo "# $3"
        sed 's/^/# /' "$dir/out"
        status=1
    fi
}

# summed WHAT LAST-LINE STATUS LOG-LINE...: results.py on such a log ends so.
summed() {
    local what=$1 line=$2 want=$3 rc
    n=$((n + 1))
    shift 3
    mkdir -p "$dir/b/meson-logs"
    printf '%s\n' "$@" >"$dir/b/meson-logs/testlog.json"
    "$tools/results.py" "$dir/b" >"$dir/out" 2>&1
    rc=$?
    if [ $rc = "$want" ] && [ "$(tail -n 1 "$dir/out")" = "$line" ]; then
        report "$what" 1
    else
        report "$what" "" "exit status $rc, want $want and \"$line\""
    fi
}

echo 1..39
claim "libeq-man: a good tree passes" libeq-man.py
claim "libeq-man: a prototype that is not that of the header is found" libeq-man.py man/libeq-way.3 "$(page 'int eq_go(long where);' goes.)\n"
claim "libeq-man: a function without a paragraph is found" libeq-man.py man/libeq-way.3 "$(page 'int eq_go(int where);' '')\n"
claim "libeq-man: a function without a page is found" libeq-man.py client/libeq.syms 'global:\n        eq_go;\n        eq_stay;\n'
claim "layers: a good tree passes" layers.py
claim "layers: an include that goes up is found" layers.py daemon/engine/up.c '#include "manager/manager.h"\n'
claim "layers: engine does not see store" layers.py daemon/engine/side.c '#include "store/store.h"\n'
claim "layers: store does not see engine" layers.py daemon/store/side.c '#include "engine/engine.h"\n'
claim "layers: <> is no way to store" layers.py daemon/engine/angle.c '#include <store/store.h>\n'
claim "layers: spawner sees base only" layers.py daemon/spawner/main.c '#include "proto/codec.h"\n'
claim "layers: executor sees the spawner's wire only" layers.py daemon/executor/link.c '#include "spawner/spawner.h"\n'
claim "layers: proto includes nothing of ours" layers.py proto/codec.c '#include "base/base.h"\n'
claim "layers: clients do not see the daemon" layers.py client/eqctl/main.c '#include "base/base.h"\n'
claim "layers: a detour by .. is no way up" layers.py daemon/base/base.c '#include "../engine/engine.h"\n'
claim "layers: an include without its floor is found" layers.py daemon/engine/bare.c '#include "engine.h"\n'
claim "layers: an include of nothing is found" layers.py daemon/engine/none.c '#include "engine/gone.h"\n'

claim "events: a good tree passes" events.py
claim "events: a record without an id is found" events.py daemon/manager/loud.c 'void f(void) {\n        log_write(LOG_ERR, "no");\n}\n'
claim "events: a line to standard error is found" events.py daemon/main.c 'static int serve(void) {\n        fprintf(stderr, "no");\n}\n'
claim "events: a text that ends in nothing is found" events.py daemon/base/events.def 'EVENT(NONE, "none", "0", LOG_ERR, 0, "it ends: ", "", "")\n' "loose end"
claim "events: a plural of one is found" events.py daemon/base/events.def 'EVENT(NONE, "none", "0", LOG_ERR, 0,\n      "%zu tasks", "", "")\n' "wrong for 1"
claim "events: an event that nothing writes is found" events.py daemon/base/events.def 'EVENT(NONE, "none", "0", LOG_ERR, 0, "", "", "")\n'

claim "headers: a good tree passes" headers.sh
claim "headers: one that needs its neighbour is found" headers.sh daemon/base/list.h '#pragma once\nsize_t f(void);\n'
claim "headers: an installed one that C++ refuses is found" headers.sh client/eq.h '#pragma once\nint f(int class);\n'

claim "format: a good tree passes" format.sh
claim "format: a tab is found" format.sh daemon/base/tab.c 'int f(void) {\n\treturn 0;\n}\n'

claim "readme: a good tree passes" readme.sh
claim "readme: a package that is not named is found" readme.sh README.md "$(readme "gcc check" "unit, tools")\n"
claim "readme: a folder of tests that is not named is found" readme.sh README.md "$(readme "${PACKAGES_BUILD[*]} check" unit)\n"

# other_format WHAT STATUS TEXT-OF-DIFFERENCE: format.sh where only a clang-format 19 is, which finds that.
other_format() {
    local rc
    n=$((n + 1))
    plant
    mkdir -p "$dir/bin"
    printf '#!/bin/sh\nexit 127\n' >"$dir/bin/clang-format-14"
    printf '#!/bin/sh\n[ "$1" != --version ] || exec echo clang-format version 19.1.7\n[ -z "%s" ]\n' "$3" >"$dir/bin/clang-format"
    chmod +x "$dir"/bin/*
    PATH=$dir/bin:$PATH "$tools/format.sh" "$tree" >"$dir/out" 2>&1
    rc=$?
    if [ $rc = "$2" ] && grep -q 19.1.7 "$dir/out"; then
        report "$1" 1
    else
        report "$1" "" "exit status $rc, want $2"
    fi
}
other_format "format: another version that finds nothing is good enough" 0 ""
other_format "format: one that would write otherwise says so and is no failure" 77 "differs"

ok='{"name": "eqd:unit / a", "result": "OK", "returncode": 0, "stdout": ""}'
summed "results: what passed is counted" "2 passed, 0 failed" 0 "$ok" "$ok"
summed "results: one failure fails" "1 passed, 1 failed" 1 "$ok" \
    '{"name": "eqd:unit / b", "result": "FAIL", "returncode": 1, "stdout": "why"}'
summed "results: points of TAP count" "2 passed, 1 failed, 1 skipped" 1 \
    '{"name": "eqd:unit / t", "result": "FAIL", "returncode": 1, "stdout": "1..4\nok 1 - a\nnot ok 2 - b\nok 3 - c # SKIP not root\nok 4 - d\n"}'
shown=$(grep -c 'ok . - ' "$dir/out")
n=$((n + 1))
if [ "$shown" = 1 ] && grep -q 'not ok 2 - b' "$dir/out"; then
    report "results: of the points of a failed test those that failed are shown" 1
else
    report "results: of the points of a failed test those that failed are shown" "" "$shown are"
fi
summed "results: a program that dies after its last point failed" "1 passed, 1 failed" 1 \
    '{"name": "eqd:unit / t", "result": "ERROR", "returncode": 1, "stdout": "ok 1 - a\n1..1\n"}'
summed "results: a time-out failed" "0 passed, 1 failed" 1 \
    '{"name": "eqd:unit / t", "result": "TIMEOUT", "returncode": -9, "stdout": ""}'
summed "results: skipping everything is no success" "0 passed, 0 failed, 1 skipped" 1 \
    '{"name": "eqd:unit / t", "result": "SKIP", "returncode": 77, "stdout": "not root"}'
exit $status
