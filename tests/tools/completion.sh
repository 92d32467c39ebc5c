#!/bin/bash
# SPDX-License-Identifier: MIT
# completion.sh EQD EQCTL: do bash, zsh and fish complete eqctl? Each loads its script as users do and is asked, with a real
# eqd behind it. TAP: a claim for each shell and line; of a shell that is not there one that is skipped.
set -u
exec </dev/null # a shell that asks something gets no answer
eqd=$1
PATH=$(dirname "$2"):$PATH
dir=$(mktemp -d "${TMPDIR:-/tmp}/eqd-XXXXXX") || exit 2
export EQD_SOCKET=$dir/s HOME=$dir
mkdir "$dir/config" "$dir/functions"
"$eqd" --socket "$dir/s" --state "$dir/state" --config "$dir/config" 2>"$dir/log" &
daemon=$!
worker=
trap '[ -z "$worker" ] || kill "$worker"; kill "$daemon"; wait; rm -rf "$dir"' EXIT
eqctl ping --wait 60s || exit 2
eqctl queue create films && eqctl queue create mails executor=worker && eqctl pool create posters slots=2 --quiet || exit 2
eqctl submit --hold -q films -J poster -- true >"$dir/id" || exit 2
eqctl worker run -q mails -- true &
worker=$!
eqctl run -n -q mails --payload x # so it serves
eqctl completion bash >"$dir/bash" && eqctl completion fish >"$dir/fish" && eqctl completion zsh >"$dir/functions/_eqctl" || exit 2

# complete_SHELL LINE: what the line, without its newline, can be completed to; one a line.
complete_bash() {
    timeout 200 bash --noprofile --norc -c '
        source "$1"
        read -ra COMP_WORDS <<<"$2"
        [[ $2 != *" " ]] || COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        complete -p eqctl | grep -q -- "-F _eqctl " && _eqctl
        printf "%s\n" "${COMPREPLY[@]}"' bash "$dir/bash" "$1"
}

complete_fish() {
    timeout 200 fish --no-config -c 'source $argv[1]; complete -C $argv[2]' "$dir/fish" "$1" | cut -f 1
}

# What its editor calls at a Tab, as compinit has found it. compadd(1) works in the editor only; here it prints what it would add.
complete_zsh() {
    timeout 200 zsh -f -c '
        fpath=($1 $fpath)
        autoload -Uz compinit && compinit -u -D || exit
        compadd() {
            local -a hits
            while [[ $1 == -* && $1 != -- ]]; do
                case $1 in
                    -a) hits=(${(P)2}); break ;;
                    -[dS]) shift ;;
                esac
                shift
            done
            [[ $1 != -- ]] || hits=("${@:2}")
            print -rl -- ${(M)hits:#$words[CURRENT]*}
        }
        words=(${(s: :)2})
        [[ $2 != *" " ]] || words+=("")
        CURRENT=${#words}
        ${_comps[eqctl]}' zsh "$dir/functions" "$1"
}

n=0
status=0
report() {
    n=$((n + 1))
    if [ -n "$2" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        printf '%s\n' "$3" | sed 's/^/# offered: /'
        status=1
    fi
}

# offers SHELL WHAT LINE WORD [OTHER]: completes LINE to WORD, and not to OTHER.
offers() {
    local words good=
    words=$("complete_$1" "$3" 2>&1)
    grep -qx -- "$4" <<<"$words" && ! grep -qx -- "${5:-$4.}" <<<"$words" && good=1
    report "$1 completes $2: $3" "$good" "$words"
}

for shell in bash zsh fish; do
    if ! command -v "$shell" >/dev/null; then
        n=$((n + 1))
        echo "ok $n - $shell completes eqctl # SKIP no $shell here; install it with: apt install $shell"
        continue
    fi
    offers "$shell" "a verb" "eqctl sub" submit ls
    offers "$shell" "the second word of a verb" "eqctl queue fl" flush pause
    offers "$shell" "an option" "eqctl submit --ret" --retries --hold
    offers "$shell" "no option of another verb" "eqctl ls --n" --no-headers --nice
    offers "$shell" "a queue after its option" "eqctl submit -q fi" films mails
    offers "$shell" "an option after those of all verbs" "eqctl -o json --host ssh://here submit --ret" --retries --hold
    offers "$shell" "a queue as an operand" "eqctl queue pause fi" films mails
    offers "$shell" "a task" "eqctl cancel fi" "$(cat "$dir/id")" films
    offers "$shell" "a state" "eqctl ls -s RUN" RUNNING DONE
    offers "$shell" "one of the words of an option" "eqctl submit --on-dup s" skip replace
    offers "$shell" "the words of another verb's" "eqctl logs -o r" raw table
    offers "$shell" "one of the words of an operand" "eqctl completion z" zsh bash
    offers "$shell" "a pool" "eqctl pool show po" posters films
    offers "$shell" "a worker" "eqctl worker kick " "$(eqctl worker ls -o id)" films
    offers "$shell" "a parameter" "eqctl param get commands.sl" commands.slots daemon.log_level
done
for shell in bash fish; do
    command -v "$shell" >/dev/null || continue
    offers "$shell" "a parameter to set" "eqctl param set commands.sl" commands.slots= commands.slots
done
echo "1..$n"
exit $status
