# What the scripts beside this one share. Sourced, never run.
# shellcheck shell=bash disable=SC2034

say() {
    printf '\n== %s\n' "$*"
}

fail() {
    printf '\nerror: %s\n' "$*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Runs a command as root, by sudo where we are somebody else.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        fail "this needs root or passwordless sudo: $*"
    fi
}

# Installs Debian packages without letting them start their services: what the tests need, they start themselves.
apt_install() {
    have apt-get || fail "missing $*, and this is not a Debian or Ubuntu that could install it"
    local policy=/usr/sbin/policy-rc.d
    local put_policy=false
    if [ ! -e "$policy" ]; then
        put_policy=true
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    # One mirror of many may be away; whether it mattered, the installation tells.
    as_root apt-get update -qq || true
    local status=0
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" || status=$?
    if "$put_policy"; then
        as_root rm -f "$policy"
    fi
    [ "$status" = 0 ] || fail "apt-get could not install $*"
}

# A loopback port nobody listens on, below the range the kernel gives to outgoing connections.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 10000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            printf '%s\n' "$port"
            return
        fi
    done
    fail "found no free port"
}

# Waits up to half a minute until a command succeeds.
wait_until() {
    for _ in {1..300}; do
        if "$@" >/dev/null 2>&1; then
            return 0
        fi
        sleep 0.1
    done
    return 1
}

# Put in front of a server, this ends it with the script even when the script is killed outright.
bound_to_script=()
if have setpriv; then
    bound_to_script=(setpriv --pdeathsig INT)
fi
