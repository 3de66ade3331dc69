#!/usr/bin/env bash
# Sets up .venv for `make demo` or `make test`: setup.sh demo|test. Quick when nothing changed.
#
# What Debian packages can give (a broker, headers) is installed where that is allowed: as root or with a sudo that
# asks for no password. Where it is not, a message says what is missing, what that means and what to type.
# PYTHON chooses the interpreter (default python3).
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
what=${1:?usage: setup.sh demo|test}
python=${PYTHON:-python3}
case $what in
demo) extras=onnx,demo ;;
test) extras=onnx,sparkplug,demo,dev ;;
*) echo "setup.sh: '$what' is neither demo nor test" >&2; exit 2 ;;
esac

say() { echo "setup: $*"; }
stop() { printf 'setup: %s\n' "$@" >&2; exit 1; }

# --- Debian packages -------------------------------------------------------------------------------------------------

root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n -- "$@"; fi; }
may_install() { command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; }
policy=/usr/sbin/policy-rc.d
remove_policy() { if [ -n "${policy_is_ours-}" ]; then root rm -f "$policy"; policy_is_ours=; fi; }
trap remove_policy EXIT

# apt PACKAGE...: true when they are there afterwards. Packages must not start their services: a plant's port 1883 is
# not ours to take. An existing policy of the machine's owner is left as it is.
apt() {
    may_install || return 1
    say "installing Debian packages: $*"
    local log
    log=$(mktemp)
    if [ ! -e "$policy" ]; then
        policy_is_ours=yes
        printf '#!/bin/sh\nexit 101\n' | root tee "$policy" >/dev/null && root chmod 755 "$policy"
    fi
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@")
    # The package lists are fetched only if they are missing or too old for what is asked.
    if root "${install[@]}" >"$log" 2>&1 || { root apt-get update >>"$log" 2>&1 && root "${install[@]}" >>"$log" 2>&1; }; then
        remove_policy
        rm -f "$log"
    else
        remove_policy
        say "apt-get failed; the end of its output ($log):"
        tail -n 15 "$log"
        return 1
    fi
}

# missing WHAT MEANING COMMAND: the plain message where apt did not help.
missing() {
    say "$1 is missing. $2"
    say "  to have it: $3"
}

# --- what the project uses if it can ------------------------------------------------------------------------------------

broker() {
    # Debian puts it where only root's PATH leads.
    { command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ]; } && return
    if apt mosquitto; then
        # We want the program, not another broker on this machine's port 1883 from the next boot on.
        if command -v systemctl >/dev/null; then root systemctl disable mosquitto >/dev/null 2>&1 || true; fi
        say "mosquitto is installed; its service is left off (sudo systemctl enable --now mosquitto turns it on)"
    elif [ "$what" = demo ]; then
        missing "the broker mosquitto" "The demo uses the smaller broker amqtt from PyPI instead." "sudo apt-get install mosquitto"
    else
        missing "the broker mosquitto" "Tests that need it are skipped or use amqtt from PyPI." "sudo apt-get install mosquitto"
    fi
}

# The library of systemd itself for sd_notify; without it the project sends the same datagram. It is built from source.
systemd_python() {
    .venv/bin/python -c 'import systemd.daemon' 2>/dev/null && return
    local headers=(libsystemd-dev pkg-config gcc "python$version-dev")
    can_build || apt "${headers[@]}" || true
    if can_build && .venv/bin/python -m pip install -q --disable-pip-version-check "systemd-python>=235" >.venv/pip.log 2>&1; then
        say "systemd-python is built in"
    else
        missing "systemd-python" "It is left out: readiness, watchdog and status work without it." \
            "sudo apt-get install ${headers[*]} && .venv/bin/pip install systemd-python"
    fi
}
# Eclipse Tahu's reader of Sparkplug payloads, in JavaScript: a test has it read what we send.
tahu() {
    [ -d .venv/node_modules/sparkplug-payload ] && return
    local fetch=(npm install --prefix .venv --no-audit --no-fund --silent sparkplug-payload@1.0.3)
    if command -v node >/dev/null && command -v npm >/dev/null && "${fetch[@]}" >.venv/npm.log 2>&1; then
        say "Eclipse Tahu's sparkplug-payload is there"
    else
        missing "sparkplug-payload of npm" "The tests that read Sparkplug messages with it are skipped." \
            "sudo apt-get install nodejs npm && ${fetch[*]}"
    fi
}
can_build() {
    command -v gcc >/dev/null && command -v pkg-config >/dev/null && pkg-config --exists libsystemd &&
        .venv/bin/python -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}

# TensorRT-RTX without a GPU: its parser and builder are NVIDIA's own, and every network is built with them in the tests.
# 95 MB, which pip keeps for the next time; there are wheels for x86-64 and newer aarch64.
tensorrt_rtx() {
    .venv/bin/python -c 'import tensorrt_rtx_bindings' 2>/dev/null && return
    local wheels=(tensorrt-rtx-cu13-bindings==1.7.1.116 tensorrt-rtx-cu13-libs==1.7.1.116)
    say "fetching TensorRT-RTX for the tests of the TensorRT backend (95 MB the first time)"
    .venv/bin/python -m pip install -q --disable-pip-version-check --only-binary :all: "${wheels[@]}" >.venv/pip.log 2>&1 ||
        missing "TensorRT-RTX" "Tests that build networks with it are skipped." ".venv/bin/pip install ${wheels[*]}"
}

# --- .venv ------------------------------------------------------------------------------------------------------------

command -v "$python" >/dev/null || stop "no '$python' here; denoised needs Python 3.10 or newer." \
    "  to have it: sudo apt-get install python3      (or: make $what PYTHON=/path/to/python3)"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || stop "'$python' is Python $version; denoised needs 3.10 or newer." \
    "  choose another one: make $what PYTHON=python3.12"

# What .venv was set up from: when any of it changes, setting up begins again.
stamp="$(cat setup.py setup.sh __init__.py | cksum) $("$python" -c 'import sys; print(sys.version.split()[0], sys.executable)') $here"
if [ -x .venv/bin/python ] && { [ "$(cat .venv/ready-for-test 2>/dev/null)" = "$stamp" ] ||
    [ "$(cat ".venv/ready-for-$what" 2>/dev/null)" = "$stamp" ]; }; then
    exit 0
fi

# A venv holds absolute paths and one interpreter: after a move of the checkout or a new Python it is made again.
is_ours() {
    [ -x .venv/bin/pip ] && head -n 3 .venv/bin/pip | grep -qF "$here/.venv/bin/python" &&
        [ "$(.venv/bin/python -c 'import sys; print(sys.version)')" = "$("$python" -c 'import sys; print(sys.version)')" ]
}
if ! is_ours; then
    "$python" -c 'import ensurepip' 2>/dev/null || apt "python$version-venv" ||
        stop "Python's module ensurepip is missing, so no virtual environment can be made (Debian ships it apart)." \
            "  to have it: sudo apt-get install python$version-venv      then again: make $what"
    say "making .venv with Python $version"
    rm -rf .venv
    "$python" -m venv .venv
fi

broker
say "installing denoised[$extras] and what it needs into .venv (about a minute the first time)"
if ! .venv/bin/python -m pip install -q --disable-pip-version-check -e ".[$extras]" >.venv/pip.log 2>&1; then
    tail -n 15 .venv/pip.log >&2
    stop "pip could not install the packages (above; whole output in .venv/pip.log)."
fi
if [ "$what" = test ]; then
    systemd_python
    tahu
    tensorrt_rtx
    # The checkout is the package `denoised` whatever its folder is called: mypy finds it under that name here.
    mkdir -p .venv/types && ln -sfn ../.. .venv/types/denoised
fi
printf '%s\n' "$stamp" >".venv/ready-for-$what"
