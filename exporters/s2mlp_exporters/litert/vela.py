"""Compile a .tflite file for an Ethos-U with Arm's compiler Vela, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import CompilerError
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_exporters.litert.schema import load_schema

PACKAGE = "ethos-u-vela"
MODULE = "ethosu"

COMPILED = "model_vela.tflite"

NPU_OPERATOR = b"ethos-u"
"""The custom operator that stands for everything that the NPU runs."""


def missing() -> str | None:
    """The reason where Vela is not installed; else None."""
    return None if find_spec(MODULE) else f"--npu needs the package {PACKAGE}: {pip_install('vela')}"


def vela_version() -> str:
    """The installed version of Vela; "unknown" where it has none."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "unknown"


def compile_for(npu: str, model: Path, destination: Path) -> tuple[int, dict[str, int]]:
    """Write ``model`` compiled for ``npu`` to ``destination``; how many of its operators the NPU takes, and which it leaves.

    Raises:
        CompilerError: with the last line that Vela prints, where it fails.
    """
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "ethosu.vela", str(model), "--accelerator-config", npu, "--output-dir", place]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        made = Path(place) / COMPILED
        if done.returncode or not made.is_file():
            lines = (done.stderr + done.stdout).strip().splitlines() or ["it printed nothing"]
            raise CompilerError(f"Vela {vela_version()} did not compile the model for {npu}: {lines[-1].strip()}")
        content = made.read_bytes()
    destination.write_bytes(content)
    left = _operators(content)
    del left[NPU_OPERATOR.decode()]
    return _operators(model.read_bytes()).total() - left.total(), dict(sorted(left.items()))


def _operators(content: bytes) -> Counter[str]:
    """The operators of a model by name, counted."""
    schema = load_schema()
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
    model = schema.Model.GetRootAs(content)
    graph = model.Subgraphs(0)
    codes = (model.OperatorCodes(graph.Operators(i).OpcodeIndex()) for i in range(graph.OperatorsLength()))
    return Counter(_name(code, names) for code in codes)


def _name(code: Any, names: dict[int, str]) -> str:
    custom = code.CustomCode()
    return str(custom.decode()) if custom else names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
