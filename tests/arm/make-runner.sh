#!/usr/bin/env bash
# make-runner.sh ROOT CONSTRAINTS: put run_program.cpp, built for 64-bit ARM, and the libraries of ExecuTorch's wheel that it is linked to into
# the folder ROOT (see make-root.sh). Needs the package g++-aarch64-linux-gnu of Debian 12.
set -euo pipefail
root=$(realpath "$1"); constraints=$2; wheel=$root/executorch
rm -rf "$wheel"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
    --platform manylinux_2_28_aarch64 -c "$constraints" -d "$wheel" executorch
python3 -m zipfile -e "$wheel"/executorch-*.whl "$wheel"
package=$wheel/executorch
aarch64-linux-gnu-g++ -std=c++17 -O1 -DC10_USING_CUSTOM_GENERATED_MACROS -isystem "$package/include" \
    -isystem "$package/include/executorch/runtime/core/portable_type/c10" "$(dirname "$0")/run_program.cpp" -o "$root/usr/bin/run_program" \
    -L"$package/lib" -Wl,-rpath,"$package/lib" -Wl,--no-as-needed \
    -lexecutorch -lexecutorch_threadpool -lexecutorch_kernels_optimized -lexecutorch_backend_xnnpack
