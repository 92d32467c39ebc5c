#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: units-verify.sh BUILT_UNITS SOURCE_UNITS
#
# The units have no mistake that systemd sees, and eqd.service is hardened as far as we promise: a score of at most 5.0, with
# the drop-in fixed-user of at most 2.6, with no-commands of at most 0.5, and what it lacks is explained. systemd wants to see the programs of ExecStart= and
# ExecReload=, which may not be installed: they are replaced by /bin/true, nothing else is. 77: there is no systemd-analyze.
set -eu

built=$(cd "$1" && pwd)
source=$(cd "$2" && pwd)
command -v systemd-analyze >/dev/null || { echo "SKIP: no systemd-analyze"; exit 77; }

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
status=0

fail() {
    printf 'FAIL: %s\n' "$*" >&2
    status=1
}

# verify MODE DIR: every line that systemd prints about these units is a failure.
verify() {
    out=$(XDG_RUNTIME_DIR="$dir" SYSTEMD_UNIT_PATH="$2:" systemd-analyze verify --man=no --recursive-errors=no "--$1" \
        "$2/eqd.service" "$2/eqd.socket" 2>&1) || fail "systemd-analyze verify --$1"
    out=$(printf '%s\n' "$out" | grep -e "$2" -e 'eqd\.' || true)
    [ -z "$out" ] || { printf '%s\n' "$out"; fail "$1 units: see above"; }
}

for mode in system user; do
    sub=$([ $mode = user ] && echo /user || echo)
    mkdir "$dir/$mode"
    sed -E 's,^(Exec[A-Za-z]+=)[^ ]+,\1/bin/true,' "$built$sub/eqd.service" >"$dir/$mode/eqd.service"
    cp "$source$sub/eqd.socket" "$dir/$mode/"
    if grep -n '@[a-z]*dir@' "$dir/$mode/eqd.service"; then
        fail "$mode eqd.service: a place was not filled in"
    fi
    verify $mode "$dir/$mode"
done

# harden DROPIN|none THRESHOLD: with the drop-in the unit verifies, and its score (times ten) is at most the threshold.
harden() {
    rm -rf "$dir/system/eqd.service.d"
    if [ "$1" != none ]; then
        mkdir "$dir/system/eqd.service.d"
        cp "$source/drop-ins/$1.conf" "$dir/system/eqd.service.d/"
        verify system "$dir/system"
    fi
    systemd-analyze security --offline=true --threshold="$2" --no-pager "$dir/system/eqd.service" >"$dir/security" 2>&1 || {
        cat "$dir/security"
        fail "eqd.service, drop-in $1: its score times ten is above $2"
    }
    echo "drop-in $1: $(tail -n 1 "$dir/security")"
    # What systemd finds missing is named by the unit or the drop-in: set for a part, or left out with the reason in a comment.
    [ "$1" = setuid-programs ] || for line in $(sed -n 's/^✗ \([^ ]*\).*/\1/p' "$dir/security"); do
        name=${line%%=*}= set=${line#*=}
        case $name$set in
            SystemCallFilter=~@*) name=${set#\~} ;;
        esac
        cat "$dir/system/eqd.service" "$dir"/system/eqd.service.d/*.conf 2>/dev/null | grep -qF "$name" ||
            fail "eqd.service, drop-in $1: no word on why $line is left out"
    done
}

harden none 50
harden fixed-user 26
harden no-commands 5
harden setuid-programs 95

# It is there to let set-user-ID programs work: nothing that forbids them in a unit with User= may be left.
left=$(cat "$dir/system/eqd.service" "$dir/system/eqd.service.d/setuid-programs.conf" |
    awk -F= '/^(NoNewPrivileges|Lock|Protect(Clock|Hostname|Kernel)|Restrict|SystemCall(Filter|Arch)|PrivateDevices|Memory)/ { on[$1] = $2 }
        END { for (name in on) if (on[name] != "" && on[name] != "no") print name }')
[ -z "$left" ] || fail "setuid-programs.conf leaves on what sets no_new_privs: $left"

if command -v systemd-sysusers >/dev/null; then
    mkdir -p "$dir/root/etc"
    systemd-sysusers --root="$dir/root" "$source/eqd.sysusers.conf" || fail "sysusers.d"
    grep -q '^eqd:' "$dir/root/etc/passwd" && grep -q '^eqd:' "$dir/root/etc/group" || fail "sysusers.d makes no user eqd"
fi
exit $status
