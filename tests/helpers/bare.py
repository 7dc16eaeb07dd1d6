"""Processes that cannot find some packages, as if they were not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from helpers.support import ROOT

OPTIONAL = (
    "torch",
    "torchvision",
    "onnxruntime",
    "onnxsim",
    "onnxscript",
    "PIL",
    "tensorrt",
    "tensorrt_rtx",
    "openvino",
    "ai_edge_litert",
    "executorch",
    "coremltools",
    "polygraphy",
    "matplotlib",
    "mlperf_loadgen",
    "jinja2",
    "pynvml",
    "jtop",
    "cyclonedx",
    "mlflow",
    "ray",
    "cryptography",
    "model_signing",
)
"""What only extras install."""


BARE = """
import contextlib
import importlib
import io
import json
import sys

hidden, steps = json.loads(sys.argv[1])


class Hiding:
    # Finds what another finder finds, but for the hidden packages.
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)


sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
already = set(sys.modules)


def run(step):
    out, err = io.StringIO(), io.StringIO()
    answer = {"code": 0}
    sys.argv = [step[0], *step[1:]]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if step[0] == "import":
                importlib.import_module(step[1])
            else:
                importlib.import_module("s2mlp_deploy.cli." + step[0].removeprefix("s2mlp-")).main()
        except ModuleNotFoundError as error:
            answer["missing"] = error.name.partition(".")[0]
        except SystemExit as stop:
            answer["code"] = stop.code or 0
    return answer | {"out": out.getvalue(), "err": err.getvalue()}


answers = [run(step) for step in steps]
modules = {
    name: getattr(module, "__file__", None) or ""
    for name, module in list(sys.modules.items())
    if name not in already and "." not in name
}
print(json.dumps([answers, modules]))
"""


@dataclass(frozen=True)
class Bare:
    """What a process without some packages did, by step, and the top-level modules it loaded, with their files."""

    answers: dict[tuple[str, ...], dict[str, Any]]
    modules: dict[str, str]


def bare(hidden: tuple[str, ...], *steps: tuple[str, ...]) -> Bare:
    """Run ``steps`` (``import MODULE``, or a command) where ``hidden`` packages cannot be found."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BARE, json.dumps([hidden, steps])],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers, modules = json.loads(done.stdout)
    return Bare(dict(zip(steps, answers, strict=True)), modules)


def answer(ran: Bare, command: str, *options: str) -> dict[str, Any]:
    """The answer to the step that starts with ``command`` and ends with ``options``."""
    (found,) = (a for step, a in ran.answers.items() if step[0] == command and step[2:] == options)
    return found
