"""``make arm``: are bundles of every precision, recipe and format that has wheels for ARM right on ARM processors, emulated by qemu-user?

Bundles of the bundled checkpoint are made here, and verified by s2mlp-verify's own code in Debian's Python for ARM; ExecuTorch's programs are run
there by a small program of their own. Skipped, with the reason, where that cannot be set up; everything lies in build/arm.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PLACE = ROOT / "build" / "arm"
CHECKPOINT, IMAGES = ROOT / "examples" / "fashion_mnist.pt", ROOT / "examples" / "test_images"

PACKAGES = (
    "numpy",
    "onnx",
    "onnx-ir",
    "safetensors",
    "pydantic",
    "typer",
    "rich",
    "packaging",
    "onnxruntime",
    "ai-edge-litert",
)
"""The base package's dependencies, and the runtimes."""

WITHOUT_FLOAT16, WITH_FLOAT16 = ("cortex-a53", "cortex-a72"), "neoverse-n1"
"""Processors of the Raspberry Pi 3 and 4; and one with dot products and float16 arithmetic, as phones, the Raspberry Pi 5
and the Jetson Orin have it."""

INT8 = ("--precision", "int8", "--calibration", str(IMAGES))
GRAPHS = {
    "fp32": (),
    "fp16": ("--precision", "fp16"),
    "fp16-trt": ("--precision", "fp16", "--target", "trt"),
    "int8-x86": INT8,
    "int8-arm": (*INT8, "--target", "arm"),
    "int8-litert": (*INT8, "--target", "litert"),
    "int8w": ("--precision", "int8w"),
}
COMPILED = {
    "ort": ("fp16", "int8-arm"),
    "litert": ("fp32", "fp16", "int8w", "int8-litert"),
    "executorch": ("fp32", "int8w", "int8-litert"),
}
"""What is compiled, too, by format: what ONNX Runtime does to weights, and to operators of bytes; all that LiteRT and ExecuTorch take."""

REFUSED = {("fp16-trt", WITH_FLOAT16)}
"""A graph that computes in float16 is for GPUs; there ONNX Runtime also adds up in float16."""


def main() -> int:
    if reason := unable():
        print(f"make arm: skipped: {reason}")
        return 0
    root = PLACE / "root"
    complete = root / "complete"
    if not complete.exists() or complete.read_text("utf-8").split() != list(PACKAGES):
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run(
            ["bash", HERE / "make-root.sh", root, ROOT / "constraints.txt", *PACKAGES],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    install_self(root / "site")
    if reason := unable_to_run_programs():
        print(f"make arm: without ExecuTorch: {reason}")
        del COMPILED["executorch"]
    elif not (root / "usr" / "bin" / "run_program").exists():
        subprocess.run(["bash", HERE / "make-runner.sh", root, ROOT / "constraints.txt"], check=True)
    bundles = make_bundles(PLACE / "bundles")
    wrong = 0
    cpus = sys.argv[1:] or (*WITHOUT_FLOAT16, WITH_FLOAT16)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda cpu: verified(root, cpu, bundles), cpus)
    for cpu, of_cpu in zip(cpus, results, strict=True):
        for found in of_cpu:
            refused = (found["bundle"], cpu) in REFUSED
            right = found["passed"] != refused and bool(found["cause"]) == refused
            wrong += not right
            verdict = "passed" if found["passed"] else f"refused: {found['cause']}"
            print(
                f"{'ok  ' if right else 'FAIL'} {cpu:12} {found['bundle']:18} {found['relative_l2']:.1e} {verdict}",
                flush=True,
            )
    print(f"make arm: {f'{wrong} WRONG' if wrong else 'everything as expected'}")
    return min(wrong, 1)


def unable() -> str | None:
    """Why ARM cannot be emulated on this machine."""
    for program, package in {"qemu-aarch64": "qemu-user", "dpkg": "dpkg", "apt-get": "apt"}.items():
        if not shutil.which(program):
            return f"there is no {program}: apt-get install {package}"
    release = platform.freedesktop_os_release()
    if (release.get("ID"), release.get("VERSION_ID")) != ("debian", "12"):
        return "Python for ARM is taken from Debian 12, and this is another system"
    return None


def unable_to_run_programs() -> str | None:
    """Why ExecuTorch's programs cannot be made or run."""
    if not shutil.which("aarch64-linux-gnu-g++"):
        return "there is no aarch64-linux-gnu-g++: apt-get install g++-aarch64-linux-gnu"
    return None if find_spec("executorch") else "it is not installed: pip install '.[executorch]'"


def install_self(site: Path) -> None:
    """Put this project's metadata, which name its formats, into ``site``; its code is read from where it is."""
    for old in site.glob("s2mlp_deploy-*.dist-info"):
        shutil.rmtree(old)
    (metadata,) = {
        Path(str(file.locate())).parent for file in distribution("s2mlp-deploy").files or () if file.name == "METADATA"
    }
    shutil.copytree(metadata, site / metadata.name)


def make_bundles(place: Path) -> list[Path]:
    """The bundles to verify, made anew."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    export = [sys.executable, "-c", "from s2mlp_deploy.cli.export import main; main()"]
    for name, options in GRAPHS.items():
        subprocess.run([*export, CHECKPOINT, *options, "-o", place / name], check=True, capture_output=True)
    for format, name in ((format, name) for format, names in COMPILED.items() for name in names):
        compiled = ["--format", format, "-o", place / f"{name}-{format}"]
        subprocess.run([*export, place / name, *compiled], check=True, capture_output=True)
    return sorted(place.iterdir())


def verified(root: Path, cpu: str, bundles: list[Path]) -> list[dict[str, object]]:
    """What s2mlp-verify finds of ``bundles`` on ``cpu``."""
    programs = [bundle for bundle in bundles if bundle.name.endswith("-executorch")]
    others = [bundle for bundle in bundles if bundle not in programs]
    found = lines_of(["bash", HERE / "run.sh", root, cpu, "usr/bin/python3.11", HERE / "verify.py", *others])
    return found + lines_of([sys.executable, HERE / "verify_programs.py", root, cpu, *programs])


def lines_of(command: list[str | Path]) -> list[dict[str, object]]:
    """The lines of JSON that ``command`` prints."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "exporters")])
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "PYTHONPATH": paths}
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    sys.exit(main())
