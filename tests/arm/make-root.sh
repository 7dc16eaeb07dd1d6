#!/usr/bin/env bash
# make-root.sh ROOT CONSTRAINTS PACKAGE…: a Python for 64-bit ARM in the folder ROOT, which qemu-user runs, with PACKAGEs and what they need
# from their aarch64 wheels. Needs the packages qemu-user and dpkg of Debian 12.
set -euo pipefail
root=$(realpath -m "$1"); constraints=$2; shift 2
python=3.11
mkdir -p "$root/lists/partial" "$root/cache/archives/partial" "$root/debs" "$root/wheels" "$root/site"
arm=(-oAPT::Architecture=arm64 -oAPT::Architectures=arm64 "-oDir::State::Lists=$root/lists" "-oDir::Cache=$root/cache" -oAPT::Sandbox::User="$(id -un)")
apt-get "${arm[@]}" -qq update
(cd "$root/debs" && apt-get "${arm[@]}" -qq download python$python python$python-minimal libpython$python-minimal libpython$python-stdlib \
    libc6 libstdc++6 libgcc-s1 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libncursesw6 libtinfo6 \
    libreadline8 libcrypt1 libdb5.3 libnsl2 libtirpc3)
for deb in "$root"/debs/*.deb; do dpkg -x "$deb" "$root"; done
platforms=(manylinux_2_28_aarch64 manylinux_2_27_aarch64 manylinux_2_17_aarch64 manylinux2014_aarch64)
python3 -m pip download --quiet --disable-pip-version-check --only-binary=:all: --python-version $python --implementation cp \
    "${platforms[@]/#/--platform=}" -c "$constraints" -d "$root/wheels" "$@"
for wheel in "$root"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$root/site"; done
printf '%s\n' "$@" >"$root/complete"
