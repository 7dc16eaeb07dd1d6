#!/usr/bin/env bash
# run.sh ROOT CPU PROGRAM ARGUMENTS…: a program of ROOT (see make-root.sh) on an emulated processor, as in
# run.sh root neoverse-n1 usr/bin/python3.11 -c 'import onnxruntime'.
# What it computes is what counts; how long it takes says nothing.
set -euo pipefail
root=$(realpath "$1"); cpu=$2; program=$3; shift 3
features="fp asimd evtstrm aes pmull sha1 sha2 crc32"
case $cpu in
    cortex-a53) part=0xd03 ;;
    cortex-a72) part=0xd08 ;;
    neoverse-n1) part=0xd0c; features="$features atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp" ;;
    *) echo "run.sh: no processor $cpu: expected cortex-a53, cortex-a72 or neoverse-n1" >&2; exit 2 ;;
esac
# A root of its own, so that several run at once: all of the first one's, and what describes the processor. ONNX Runtime reads that to
# learn what it can do, and crashes where it describes another architecture.
own=$root/$cpu
mkdir -p "$own/proc" "$own/sys/devices/system/cpu"
for folder in usr lib etc; do ln -sfn "../$folder" "$own/$folder"; done
echo 0 | tee "$own/sys/devices/system/cpu/possible" >"$own/sys/devices/system/cpu/present"
printf 'processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: %s\nCPU revision\t: 1\n\n' \
    "$features" "$part" >"$own/proc/cpuinfo"
exec env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE -u PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX="$root/pycache" PYTHONPATH="$root/site${PYTHONPATH:+:$PYTHONPATH}" \
    qemu-aarch64 -cpu "$cpu" -L "$own" "$own/$program" "$@"
