"""What README.md and docs print is what the commands print: ``make docs-output`` writes it anew.

A fenced block of ``console`` is a session: each line that starts with ``$`` is a command, and the lines below it are what it prints, to both streams, without the lines of progress that a terminal wipes away. ``…`` on a line of its own stands for lines that
are left out. All sessions of all documents run in one scratch folder, one after the other, with this repository's ``examples``
in it; so a later one uses what an earlier one has made. Tables of benchmarks, which take minutes, are no sessions.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from helpers import processes

ROOT = Path(__file__).parents[2]
LEFT_OUT = "…"
BLOCK = re.compile(r"^```console\n(\$ .*?)^```$", re.MULTILINE | re.DOTALL)

VARIES = (
    (r"\d\.\d+e[-+]\d+", "DISTANCE"),
    (r"\b[01]\.\d{4,}\b", "COSINE"),
    (r"\b[0-9a-f]{16}\b", "KEY"),
    (r"█+", "█"),
    (r"\b\d+\.\d{1,3}(?= +(?:│|…))|(?<=… )\d+\.\d{1,3}\b", "TIME"),
    (r"\b\d+\.\d{2}(?= times as fast)", "TIME"),
    (r"\b[\d,]+ rounds\b", "N rounds"),
    (r" ≈(?= +│)", ""),
    (r"\b\d+ cores?\b", "N cores"),
    (r"\b\d+\.\d+\.\d+(?:\.\d+)*\b", "VERSION"),
    (r"[━─]+", "─"),
    (r"\s+", " "),  # sentences break elsewhere with a longer number
)
"""What differs between machines, versions and runs, and what is compared in its place."""


@dataclass(frozen=True)
class Step:
    """A command, and the lines that a document says it prints."""

    command: str
    printed: tuple[str, ...]


@dataclass(frozen=True)
class Session:
    """A block of ``document``."""

    document: Path
    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        """The block, without its fences."""
        return "".join(f"{line}\n" for step in self.steps for line in (f"$ {step.command}", *step.printed))


class NotFoundError(Exception):
    """The line that comes after what is left out is no longer printed."""


class CrashedError(Exception):
    """A command ended with a traceback, which no document shows."""


def documents() -> list[Path]:
    """README.md and the pages of docs as the site lists them, so that each session finds what those before it make. Tutorials run alone."""
    listed = re.findall(
        r"([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2], re.MULTILINE
    )
    pages = [ROOT / "docs" / name for name in listed if not name.startswith("tutorials/")]
    return [ROOT / "README.md", *(page for page in pages if page.exists())]


def sessions(document: Path) -> Iterator[Session]:
    """The sessions of ``document``."""
    for block in BLOCK.findall(document.read_text("utf-8")):
        parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
        yield Session(
            document, tuple(Step(c, tuple(p.splitlines())) for c, p in zip(parts[::2], parts[1::2], strict=True))
        )


def cannot_run(session: Session) -> str | None:
    """Why this machine does not print what the documents are about, in words; None where it does."""
    words = {word for step in session.steps for word in re.split(r"[\s/]+", step.command)}
    if {"datasets", "fashion_mnist-onnx-int8"} & words and not Path("/usr/share/datasets/fashion-mnist").is_dir():
        return "no data set: apt-get install dataset-fashion-mnist"
    if "trt-rtx" in words and find_spec("tensorrt_rtx") is None:
        return "no TensorRT for RTX"
    if {"trt", "trt-rtx", "cuda"} & words and (find_spec("tensorrt") or Path("/dev/nvidiactl").exists()):
        return "this is about machines without TensorRT and a GPU"
    if {"--sign", "--key", "--certificate"} & words and not (find_spec("model_signing") and shutil.which("openssl")):
        return "no model-signing, or no openssl: pip install '.[sign]'; apt-get install openssl"
    return None


def run(session: Session, place: Path, known: dict[str, list[str]]) -> Session:
    """``session`` with what its commands print now, in the directory ``place``.

    A command that a page repeats with ``--force`` makes the same anew, so it takes its output from ``known``, which is filled here.

    Raises:
        NotFoundError: as :func:`shortened`.
        CrashedError: where a command ends with a traceback.
    """
    steps = []
    for step in session.steps:
        first = step.command.replace(" --force", "")
        if first == step.command or first not in known:
            known[first] = _output(step.command, place)
        steps.append(replace(step, printed=shortened(step, known[first])))
    return replace(session, steps=tuple(steps))


def _output(command: str, place: Path) -> list[str]:
    program, *arguments = shlex.split(command)
    if program.startswith("s2mlp-"):
        with tempfile.TemporaryDirectory() as log:
            running = processes.start(
                program.removeprefix("s2mlp-"), Path(log) / "log", *arguments, before=partial(os.chdir, place)
            )
            running.wait(600)
            text = running.text
    else:
        program = sys.executable if program == "python" else program
        done = subprocess.run([program, *arguments], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text = done.stdout.decode("utf-8")
    if "Traceback (most recent call last):" in text:
        raise CrashedError(f"{command} ended with a traceback:\n{text}")
    return [line.rstrip() for line in text.splitlines() if not line.endswith(f" {LEFT_OUT}")]


def shortened(step: Step, output: list[str]) -> tuple[str, ...]:
    """``output`` with those lines left out that ``step`` leaves out: as many before, and from the same line on after.

    Raises:
        NotFoundError: where that line is not printed.
    """
    if LEFT_OUT not in step.printed:
        return tuple(output)
    at = step.printed.index(LEFT_OUT)
    rest = step.printed[at + 1 :]
    if not rest:
        return (*output[:at], LEFT_OUT)
    masked = [mask(line) for line in output]
    if mask(rest[0]) not in masked:
        raise NotFoundError(f"{step.command} no longer prints: {rest[0]}\n" + "\n".join(output))
    return (*output[:at], LEFT_OUT, *output[masked.index(mask(rest[0])) :])


def mask(text: str) -> str:
    """``text`` without what differs between machines, versions and runs."""
    for pattern, stands_for in VARIES:
        text = re.sub(pattern, stands_for, text)
    return text


def look(place: Path) -> Iterator[tuple[Session, Session | str]]:
    """Each session of the documents with what it prints now, or with the reason why it does not run here."""
    (place / "examples").symlink_to(ROOT / "examples")
    known: dict[str, list[str]] = {}
    for document in documents():
        for session in sessions(document):
            yield session, cannot_run(session) or run(session, place, known)


def main() -> None:
    """Write into the documents what has changed but for what varies anyway."""
    with tempfile.TemporaryDirectory() as place:
        for session, now in look(Path(place)):
            where = f"{session.document.relative_to(ROOT)}: {session.steps[0].command}"
            if isinstance(now, str):
                print(f"not run    {where}: {now}")
            elif mask(now.text) == mask(session.text):
                print(f"as before  {where}")
            else:
                print(f"written    {where}")
                text = session.document.read_text("utf-8")
                session.document.write_text(
                    text.replace(f"```console\n{session.text}```\n", f"```console\n{now.text}```\n"), "utf-8"
                )


if __name__ == "__main__":
    main()
