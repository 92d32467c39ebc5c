# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# The Debian packages that eqd needs, in one place. Sourced by ./quickstart and ./check.

# To build eqd, eqctl and libeq.
PACKAGES_BUILD=(gcc libc6-dev meson ninja-build pkg-config python3
    libuv1-dev libmsgpack-dev libsystemd-dev libinih-dev uthash-dev zlib1g-dev musl-tools)

# To test them in every way that ./check knows.
PACKAGES_TEST=(check valgrind binutils g++ relacy-dev spin liburcu-dev clang libclang-rt-dev clang-format groff-base util-linux
    systemd systemd-container libpam-systemd dbus python3-msgpack python3-pynvim mypy zsh fish)
# Node may have come from elsewhere, with an npm of its own that Debian's would be in the way of.
command -v node >/dev/null && command -v npm >/dev/null || PACKAGES_TEST+=(nodejs npm)
PACKAGES_TEST+=(node-typescript) # needs a nodejs, whosever it is

packages_missing() {
    local package
    for package; do
        case $(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null) in
            ii*) ;;
            *) echo "$package" ;;
        esac
    done
}

packages_apt() {
    local sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 "$@" </dev/null >&2
}

# packages_install NAME...: installs those that are missing. 1, with what to do on standard error, if that fails.
packages_install() {
    local missing
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || return 0 # the build will say what it lacks
    mapfile -t missing < <(packages_missing "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        echo "Packages are missing, and only root can install them. As root:" >&2
        echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
        return 1
    fi
    echo "installing ${missing[*]}" >&2
    packages_apt --no-install-recommends install "${missing[@]}" 2>/dev/null && return 0
    packages_apt update && packages_apt --no-install-recommends install "${missing[@]}" && return 0
    echo "Could not install: ${missing[*]}" >&2
    return 1
}
