#!/bin/sh
# Set-up behind `make demo` and `make test`: a Python environment in .venv with pinned packages, compilers, emulator.
#
#     scripts/setup.sh demo|dev
#
# Does only what is missing: a second run takes a moment. As root (or where sudo asks for no password) it installs
# system packages with apt; otherwise a C compiler comes from the Python package index, and without QEMU the emulated
# board is left out. Never touches anything outside the checkout but through apt.
set -eu

cd "$(dirname "$0")/.."
what=${1:?usage: scripts/setup.sh demo|dev}
venv=.venv
python=$venv/bin/python
log=$venv/setup.log

say() { echo "set-up: $*"; }
die() { echo "set-up: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Prints the prefix that makes a command run as root ("env": it already does); fails where there is no way.
root_prefix() {
    if [ "$(id -u)" -eq 0 ]; then echo env; elif have sudo && sudo -n true 2>/dev/null; then echo "sudo -n"; else false; fi
}

# Debian and Ubuntu packages, where this user may install them; fails otherwise.
install_packages() {
    have apt-get && prefix=$(root_prefix) || return 1
    say "installing $* (apt)"
    apt_log=$(mktemp)
    if $prefix apt-get update >"$apt_log" 2>&1 &&
        $prefix env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>"$apt_log" 2>&1; then
        rm -f "$apt_log"
    else
        say "apt failed: $(grep '^E:' "$apt_log" | tail -n 1); all of it: $apt_log"
        return 1
    fi
}

find_python() {
    for candidate in python3 python3.13 python3.12 python3.11; do
        if have "$candidate" && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$candidate"
            return
        fi
    done
    die "needs Python 3.11 or newer; install it, then run this again"
}

make_venv() {
    # An environment knows where it lies: one that was moved, or whose Python is gone, is made anew.
    if [ -x $python ] && $python -c '' 2>/dev/null && [ "$(cat $venv/home 2>/dev/null)" = "$PWD" ]; then
        return
    fi
    base=$(find_python)
    rm -rf $venv
    say "creating the Python environment .venv ($("$base" --version))"
    if ! "$base" -m venv $venv >/dev/null 2>&1; then
        install_packages python3-venv || die "Python has no venv module; install the package python3-venv"
        rm -rf $venv
        "$base" -m venv $venv || die "cannot create $venv"
    fi
    echo "$PWD" >$venv/home
}

pip_install() {
    $python -m pip install --disable-pip-version-check --no-input --progress-bar off "$@" >>$log 2>&1 && return
    grep -iE '^ *(error|could not)' $log | tail -n 3 >&2
    die "pip failed; all of it: $log"
}

# What is installed follows from these files; the stamp keeps their checksum.
wanted_stamp() { cat requirements/*.txt pyproject.toml scripts/setup.sh scripts/platformio_home.py | cksum; }

is_installed() {
    for stamp in "$@"; do
        [ "$(cat "$venv/stamp-$stamp" 2>/dev/null)" = "$(wanted_stamp)" ] && return
    done
    return 1
}

install_python_packages() {
    if [ "$what" = dev ]; then is_installed dev && return; else is_installed demo dev && return; fi
    say "installing Python packages (the first time only, some minutes; details in $log)"
    : >$log
    pip_install -r requirements/$what.txt
    pip_install --no-deps --no-build-isolation -e .
    $python scripts/platformio_home.py $venv/platformio
    wanted_stamp >$venv/stamp-"$what"
}

have_host_compiler() { have cc || have gcc || have clang; }

install_compilers() {
    packages=""
    have_host_compiler || packages="gcc libc6-dev"
    have arm-none-eabi-gcc || packages="$packages gcc-arm-none-eabi"
    have qemu-system-arm || packages="$packages qemu-system-arm"
    [ -z "$packages" ] && return
    # shellcheck disable=SC2086  # a list of words
    install_packages $packages && return

    if ! { have_host_compiler && have arm-none-eabi-gcc; } && ! $python -c 'import ziglang' 2>/dev/null; then
        say "no root to install a C compiler with; taking one from the Python package index (some 400 MB)"
        pip_install -r requirements/compilers.txt
    fi
    have qemu-system-arm || say "QEMU (qemu-system-arm) is not installed: the native board is used, no emulated one"
}

# For tests alone: of the RISC-V board, and of what clang says of the kernels.
install_test_packages() {
    packages=""
    have clang || packages="clang"
    have riscv64-unknown-elf-gcc || packages="$packages gcc-riscv64-unknown-elf"
    have qemu-system-riscv32 || packages="$packages qemu-system-misc"
    [ -z "$packages" ] && return
    # shellcheck disable=SC2086  # a list of words
    install_packages $packages || say "$packages not installed: the tests that need them are left out"
}

case $what in demo | dev) ;; *) die "usage: scripts/setup.sh demo|dev" ;; esac
make_venv
install_python_packages
install_compilers
if [ "$what" = dev ]; then install_test_packages; fi
