"""Commands in processes of their own that start at once, to be killed, stopped or starved.

They are forked from a server that has loaded everything already, so that one costs half a second rather than three.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOADED = [
    "multiprocessing.popen_spawn_posix",  # first: torch starts a thread that imports it, and a lock it holds is forked
    "s2mlp_deploy.cli.export",
    "s2mlp_deploy.pipeline.export_onnx",
    "s2mlp_deploy.pipeline.deploy",
    "s2mlp_deploy.cli.tables",
    "s2mlp_deploy.gate.golden_images",
    "s2mlp_deploy.formats.onnx",
    "s2mlp_exporters.onnxruntime.exporter",
    "s2mlp_exporters.openvino.exporter",
    "s2mlp_exporters.triton.exporter",
    "s2mlp_exporters.web.exporter",
    "s2mlp_exporters.tensorrt.trt_rtx",
    "onnxruntime",
    "onnxsim",
    "openvino",
    "helpers.processes",
]

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(PRELOADED)


@dataclass
class Running:
    """A command that runs; its output is in a file."""

    process: BaseProcess
    output: Path
    started: float

    def send(self, number: int) -> None:
        """A signal, unless it has ended: the fork server reaps it, so it may be gone between the two lines."""
        if self.process.is_alive() and self.process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def wait(self, seconds: float = 600) -> int:
        """Its exit code: negative where a signal killed it.

        Raises:
            TimeoutError: where it does not end; it is killed then.
        """
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"still running after {seconds} s: {self.text}")
        return self.process.exitcode

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(errors="backslashreplace")


def export(output: Path, *arguments: object, env: Mapping[str, str] | None = None) -> Running:
    """``s2mlp-export ARGUMENTS``."""
    return start("export", output, *arguments, env=env)


def start(
    command: str,
    output: Path,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    before: Callable[[], Any] | None = None,
) -> Running:
    """``s2mlp-COMMAND ARGUMENTS``, after ``before()``; what it prints goes to the file ``output``."""
    return _start(output, _command, command, output, [str(a) for a in arguments], dict(env or {}), before)


def script(name: str, output: Path, directory: Path) -> Running:
    """``python NAME`` in ``directory``; what it prints goes to the file ``output``."""
    return _start(output, _script, name, output, directory)


def call(function: Callable[..., Any], output: Path, *arguments: object) -> Running:
    """``function(*arguments)``; what it prints goes to the file ``output``."""
    return _start(output, _call, output, function, arguments)


def _start(output: Path, target: Callable[..., None], *arguments: object) -> Running:
    output.write_bytes(b"")
    process = _server.Process(target=target, args=arguments)
    started = time.monotonic()
    process.start()
    return Running(process, output, started)


def _script(name: str, output: Path, directory: Path) -> None:
    _print_to(output)
    os.chdir(directory)
    sys.argv, sys.path = [name], [str(directory), *sys.path]
    runpy.run_path(name, run_name="__main__")


def _call(output: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _print_to(output)
    function(*arguments)


def _command(
    command: str, output: Path, arguments: list[str], env: dict[str, str], before: Callable[[], Any] | None
) -> None:
    _print_to(output)
    os.environ.update(env)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # as a shell starts it
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.argv = [f"s2mlp-{command}", *arguments]
    if before:
        before()
    from s2mlp_deploy.cli import entry_points

    getattr(entry_points, command)()


def _print_to(output: Path) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
