"""The frame around every command: output streams, progress, errors and exit codes.

Results go to stdout, progress and warnings to stderr. An error is one paragraph and an exit code, never a traceback;
with ``--json`` it is one document on stdout, as results are.
"""

from __future__ import annotations

import functools
import gc
import inspect
import io
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from s2mlp_deploy.cli import signals
from s2mlp_deploy.cli.help import Command
from s2mlp_deploy.errors import Error, InputError, RuntimeMissingError, UsageError
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_deploy.system.progress import Listener
from s2mlp_deploy.system.version import __version__

_err = Console(stderr=True, highlight=False)


class ConsoleListener(Listener):
    """Shows steps that take a while on stderr: a spinner on a terminal, lines elsewhere."""

    def step(self, what: str) -> AbstractContextManager[object]:
        """As :meth:`Listener.step`."""
        if not _err.is_terminal:
            _err.print(f"{what} …", soft_wrap=True)
        return _err.status(what)

    def warn(self, text: str) -> None:
        """As :meth:`Listener.warn`."""
        _say("warning:", "yellow", text)


class torch_needed:  # noqa: N801 - reads as a phrase where it is used
    """Turns a missing package, on heavy imports inside ``with``, into an error that names the install command.

    Pauses the garbage collector, which finds nothing among imported objects and takes a second.
    """

    def __enter__(self) -> None:
        self._first = "torch" not in sys.modules
        if self._first:
            gc.disable()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._first:
            gc.freeze()
            gc.enable()
        if isinstance(error, ModuleNotFoundError):
            raise RuntimeMissingError(
                f"this command needs the package {error.name}, which is not installed: {pip_install('export')}. Checking a bundle with "
                "s2mlp-verify does not need it"
            ) from error


def show(content: RenderableType | dict[str, Any]) -> None:
    """Print a result: a table, or a document as JSON."""
    if isinstance(content, dict):
        sys.stdout.write(json.dumps(plain(content), indent=2, default=str, allow_nan=False) + "\n")
    else:
        Console(highlight=False, width=None if sys.stdout.isatty() else 100).print(content)


def plain(value: Any) -> Any:
    """``value`` with null for numbers that are not finite, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def command(function: Callable[..., None], *examples: str) -> Callable[[], None]:
    """The entry point for ``function``, whose parameters are the command's. Its help shows ``examples`` of what may follow its name.

    Errors end it with one paragraph on stderr and an exit code; with ``--json``, with a document on stdout, too:
    ``{"error": {"kind": …, "message": …, "exit_code": …}}``, ``kind`` as in errors.py.
    """

    @functools.wraps(function)
    def guarded(*, version: bool, debug: bool, **options: Any) -> None:
        try:
            function(**options)
            sys.stdout.flush()
        except Error as error:
            _fail(type(error).__name__, str(error), error.exit_code, error.done)
        except MemoryError:
            message = "this machine has not enough memory for that: try a smaller --image-size or --batch"
            _fail("MemoryError", message, RuntimeMissingError.exit_code)
        except KeyboardInterrupt:
            _fail("Interrupted", signals.MESSAGE, signals.take())
        except BrokenPipeError:
            _reader_left()
        except OSError as error:
            if not isinstance(error.filename, str | bytes):
                raise
            reason = f"{os.fsdecode(error.filename)}: {error.strerror}"
            message = f"{reason}. If something moved or removed it meanwhile, try again"
            _fail("OSError", message, InputError.exit_code)

    own = inspect.signature(function, eval_str=True)
    guarded.__signature__ = own.replace(parameters=[*own.parameters.values(), *_COMMON])  # type: ignore[attr-defined]

    def main() -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # narrow encodings, and names of files that are no text
        program = Path(sys.argv[0]).name
        completes = completion_variable(program) in os.environ
        app = typer.Typer(add_completion=completes, pretty_exceptions_enable=False, rich_markup_mode=None)
        settings = {"help_option_names": ["-h", "--help"]}
        app.command(cls=Command, context_settings=settings, epilog="\n".join(examples))(guarded)
        try:
            code = app(standalone_mode=False, prog_name=program)
        except Exception as error:  # Typer's own are not public
            if not hasattr(error, "format_message"):
                raise
            said = error.format_message().replace("Value error, ", "").removesuffix(".")
            _fail("UsageError", f"{said}. {program} --help lists what there is", UsageError.exit_code)
        sys.exit(code)

    return main


def completion_variable(program: str) -> str:
    """The environment variable by which a shell makes ``program`` complete words, or print the script that does."""
    return f"_{program}_COMPLETE".replace("-", "_").upper()


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"s2mlp-deploy {__version__}\n")
        raise typer.Exit


_VERSION = typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
_DEBUG = typer.Option("--debug", hidden=True, help="Show tracebacks.")
_COMMON = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option])
    for name, option in (("version", _VERSION), ("debug", _DEBUG))
]


def _fail(kind: str, message: str, code: int, done: Mapping[str, Any] | None = None) -> NoReturn:
    if "--debug" in sys.argv:
        traceback.print_exc()
    report_error(kind, message, code, done)
    sys.exit(code)


def report_error(kind: str, message: str, code: int, done: Mapping[str, Any] | None = None) -> None:
    """Print an error as commands do: a paragraph on stderr and, with ``--json``, a document on stdout that begins with ``done``."""
    _say("error:", "bold red", message)
    if "--json" in sys.argv:
        try:
            show({**(done or {}), "error": {"kind": kind, "message": message, "exit_code": code}})
            sys.stdout.flush()
        except BrokenPipeError:
            _reader_left()


def _reader_left() -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that closing stdout does not fail again
    sys.exit(1)


def _say(what: str, style: str, message: str) -> None:
    """Print one paragraph on stderr. Names from files cannot break it up, style it or steer the terminal."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in re.sub(r"\s*\n\s*", " ", message))
    _err.print(Text.assemble((what, style), " ", text), soft_wrap=not _err.is_terminal)
