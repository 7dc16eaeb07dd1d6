"""Follows docs/tutorials as a reader would, command by command, and holds their pages to what happens.

A fenced block with ``title="NAME"`` is a file that the reader saves. A block of ``console`` is a session: lines that start with ``$``
are commands, and the lines below each are what it prints, as in :mod:`helpers.printed_outputs`; ``^C`` ends a command that serves
until it is stopped. All sessions of a page run in one shell, which starts in a folder that holds nothing but a clone of this
repository, ``s2mlp-deploy``. Other blocks are for reading.

``make tutorials`` starts from nothing: a fresh clone, an empty home, and what the page installs itself. ``make docs-output`` runs
the pages with this environment in place of what they install, and writes what has changed.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from helpers import browser, printed_outputs
from helpers.npm import NODE_MODULES
from helpers.printed_outputs import LEFT_OUT, ROOT, Step, shortened

PAGES = ROOT / "docs" / "tutorials"
CLONE = "s2mlp-deploy"
STOPPED = "^C"
BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)
INSTALLS = re.compile(r"python3? -m venv |\. \S+/bin/activate$|pip install ")
"""Commands that bring an environment about."""
VARIES = (
    (r"\b\d+\.\d+%", "SHARE"),
    (r"\b\d[\d.]* [kM]B\b", "SIZE"),
    (r"\b[0-9a-f]{64}\b", "SHA256"),
    (r"(?<=paper )\d\.\d+|(?<=inplace )\d\.\d+\b", "RATIO"),
    (r"(?<=mAP50 )\d\.\d+|(?<=mAP50-95 )\d\.\d+", "PRECISION"),
    (r"(?<=nodes )[ \d→,a-z]*? only move data", "COUNTS only move data"),
    (r"\b[\d.]+ ?ms\b", "TIME"),
    (r"(?<![\d.])\de-\d+\b", "LIMIT"),
)
"""What differs in a tutorial besides: its network is trained anew, and no two machines train the same."""

OWN_VARIABLES = re.compile(r"(?:PIP|NPM|npm|NODE)_|.*(?:proxy|PROXY)$|SSL_CERT_FILE$")
"""Variables of this machine that its package managers need."""


class FailedError(Exception):
    """A command of a page failed, which the page does not say."""


@dataclass(frozen=True)
class File:
    """A file to save."""

    name: str
    text: str


@dataclass(frozen=True)
class Session:
    """Commands, and what each prints."""

    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        """The block, without its fences."""
        return "".join(f"{line}\n" for step in self.steps for line in (f"$ {step.command}", *step.printed))


def pages() -> list[Path]:
    """The tutorials."""
    return sorted(PAGES.glob("*.md"))


def blocks(text: str) -> Iterator[File | Session]:
    """The files and sessions of a page, in order."""
    for block in BLOCK.finditer(text):
        if block["title"]:
            yield File(block["title"], block["text"])
        elif block["language"] == "console":
            parts = re.split(r"^\$ (.*)\n", block["text"], flags=re.MULTILINE)[1:]
            steps = zip(parts[::2], parts[1::2], strict=True)
            yield Session(tuple(Step(command, tuple(printed.splitlines())) for command, printed in steps))


def mask(text: str) -> str:
    """``text`` without what differs between machines, versions, trainings and runs."""
    for pattern, stands_for in VARIES:
        text = re.sub(pattern, stands_for, text)
    return printed_outputs.mask(text)


class Runs(Protocol):
    """Where commands run."""

    directory: Path

    def run(self, command: str) -> tuple[int, str]:
        """The exit code of ``command``, and what it printed."""

    def serve(self, command: str, line: str) -> str:
        """What ``command`` printed up to ``line``; the reader uses it then, and stops it."""


class Shell:
    """One bash for a whole page, so that ``cd`` and ``activate`` last."""

    def __init__(self, directory: Path, variables: Mapping[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=directory,
            env=dict(variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
        )

    @property
    def directory(self) -> Path:
        """Where the reader is."""
        return Path(self.run("pwd")[1].strip())

    def run(self, command: str) -> tuple[int, str]:
        """The exit code of ``command``, and what it printed.

        Raises:
            FailedError: where it ended the shell.
        """
        assert self._bash.stdin and self._bash.stdout
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null 2>&1; printf '\\nEND %s\\n' $?\n")
        self._bash.stdin.flush()
        printed = ""
        for line in self._bash.stdout:
            if line.startswith("END "):
                return int(line.split()[1]), printed.removesuffix("\n")
            printed += line
        raise FailedError(f"{command} ended the shell:\n{printed}")

    def serve(self, command: str, line: str) -> str:
        """What ``command`` printed up to ``line``, after which it was used and stopped.

        Raises:
            FailedError: where it has ended, or 15 minutes have, before it prints that.
        """
        log = self.directory / ".served"
        process = int(self.run(f"setsid bash -c {shlex.quote(command)} >{log} 2>&1 & echo $!")[1])
        try:
            for _ in range(900):
                printed = log.read_text() if log.exists() else ""
                if any(mask(line) == mask(said) for said in printed.splitlines()):
                    _visit(printed)
                    return printed
                if self.run(f"kill -0 {process}")[0]:
                    raise FailedError(f"{command} has ended:\n{printed}")
                time.sleep(1)
            raise FailedError(f"{command} does not print {line}")
        finally:
            os.killpg(process, signal.SIGTERM)
            log.unlink(missing_ok=True)

    def close(self) -> None:
        """End the shell."""
        self._bash.communicate("exit\n")


def _visit(printed: str) -> None:
    """Show the page that a server named the picture of a sneaker, where there is a browser."""
    port = int(re.findall(r"localhost:(\d+)", printed)[-1])
    if reason := browser.lacking():
        print(f"not run    the page in a browser: {reason}")
        return
    with browser.chromium(port) as chromium:
        visit = chromium.look("")
        visit.show(ROOT / "examples" / "test_images" / "7" / "00009.png")
        answer = visit.answer
        visit.check()
        outcome = visit.page.inner_text("#outcome")
        visit.page.screenshot(path=str(ROOT / "build" / "tutorial-page.png"), full_page=True)
    if "Sneaker" not in answer or "passed" not in outcome.lower():
        raise FailedError(f"the page says of a sneaker: {answer}; of this browser: {outcome}")


def follow(text: str, place: Runs, *, installs: bool) -> str:
    """Page ``text`` with what its commands print now. Without ``installs``, what brings an environment about is passed over.

    Raises:
        FailedError: where a command fails and the page shows no error, or the other way around.
        NotFoundError: where a line that the page shows after lines left out is not printed.
    """
    for block in blocks(text):
        if isinstance(block, File):
            (place.directory / block.name).write_text(block.text, "utf-8")
            continue
        steps = tuple(
            step if not installs and INSTALLS.match(step.command) else replace(step, printed=_printed(step, place))
            for step in block.steps
        )
        text = text.replace(f"```console\n{block.text}```\n", f"```console\n{Session(steps).text}```\n")
    return text


def _printed(step: Step, place: Runs) -> tuple[str, ...]:
    if step.printed and step.printed[-1] == STOPPED:
        *shown, line = step.printed[:-1]
        output = place.serve(step.command, line)
        return (*shortened(replace(step, printed=(*shown, line)), _lines(output)), STOPPED)
    code, output = place.run(step.command)
    if bool(code) != any(line.startswith("error:") for line in step.printed):
        raise FailedError(f"{step.command} ended with {code}:\n{output}")
    return shortened(step, _lines(output))


def _lines(output: str) -> list[str]:
    """What stays on a terminal: no lines of progress."""
    return [line.rstrip() for line in output.splitlines() if not line.endswith(f" {LEFT_OUT}")]


@contextmanager
def start() -> Iterator[tuple[Path, Path]]:
    """A folder with nothing but a clone of the last commit in it, and an empty home."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, home = Path(scratch, "folder"), Path(scratch, "home")
        folder.mkdir()
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / CLONE)], check=True)
        yield folder, home


def as_stranger(page: Path) -> str:
    """The page as it reads after a run from nothing."""
    with start() as (folder, home):
        machine = {name: value for name, value in os.environ.items() if OWN_VARIABLES.match(name)}
        return _followed(page, folder, {**machine, "HOME": str(home), "PATH": os.defpath, "LANG": "C.UTF-8"})


def here(page: Path) -> str:
    """The page as it reads after a run with this environment."""
    with start() as (folder, home):
        for installed in (ROOT / ".venv", NODE_MODULES):
            (folder / CLONE / installed.name).symlink_to(installed)
        for name in ("pyproject.toml", "constraints.txt", "package.json", "package-lock.json"):
            os.utime(folder / CLONE / name, (0, 0))  # so that make finds what is installed new enough
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        around = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        return _followed(page, folder, {**around, "HOME": str(home), "PATH": path}, installs=False)


def _followed(page: Path, folder: Path, variables: Mapping[str, str], *, installs: bool = True) -> str:
    shell = Shell(folder, variables)
    try:
        return follow(page.read_text("utf-8"), shell, installs=installs)
    finally:
        shell.close()


def cannot_run_here(page: Path) -> str | None:
    """Why ``page`` does not run with this environment, in words; None where it does."""
    if "ultralytics" in page.read_text("utf-8") and find_spec("ultralytics") is None:
        return "no Ultralytics; make tutorials installs it"
    return None


def main() -> None:
    """Run the pages that are named, or all: from nothing, or ``--here``. ``--write`` writes what has changed, else it is an error."""
    options = {"--here", "--write"}.intersection(sys.argv)
    names = [name for name in sys.argv[1:] if name not in options]
    stale = []
    for page in pages():
        if names and page.stem not in names:
            continue
        if "--here" in options and (reason := cannot_run_here(page)):
            print(f"not run    {page.name}: {reason}", flush=True)
            continue
        before = page.read_text("utf-8")
        now = here(page) if "--here" in options else as_stranger(page)
        if mask(before) == mask(now):
            print(f"as before  {page.name}", flush=True)
        elif "--write" in options:
            page.write_text(now, "utf-8")
            print(f"written    {page.name}", flush=True)
        else:
            stale.append(page.name)
            print("".join(difflib.unified_diff(before.splitlines(True), now.splitlines(True), page.name, "now")))
    if stale:
        sys.exit(f"{', '.join(stale)}: other lines are printed now")


if __name__ == "__main__":
    main()
