"""The tutorials: what their pages show is what a reader sees. ``make tutorials`` follows them from nothing."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import partial
from os import chdir
from pathlib import Path

import pytest

from helpers import processes, support, tutorials
from helpers.printed_outputs import NotFoundError
from helpers.tutorials import FailedError, File, Session, Shell, blocks, follow, here, mask, pages

OWN = tutorials.PAGES / "own-training-code.md"
PAGE = """# Page

```python title="hello.py"
print("hello", 1.5e-07)
```

```console
$ mkdir deep && cd deep
$ pip install nothing
…
```

```
$ of another kind
```

```console
$ cat ../hello.py | wc -l
2
$ ls nothing
error: no such file
```
"""


class Forked:
    """Where each command is a process forked from one that has loaded everything: a page in seconds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, command: str) -> tuple[int, str]:
        """The exit code of ``command``, and what it printed."""
        log = self.directory.with_name("log")
        program, *arguments = command.split()
        if program == "python":
            running = processes.script(*arguments, log, self.directory)
        elif program.startswith("s2mlp-"):
            before = partial(chdir, self.directory)
            running = processes.start(program.removeprefix("s2mlp-"), log, *arguments, before=before)
        else:
            done = subprocess.run(command, shell=True, cwd=self.directory, capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr
        return running.wait(), running.text

    def serve(self, command: str, line: str) -> str:
        """Nothing here serves."""
        raise NotImplementedError


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty folder."""
    opened = Shell(tmp_path, {"PATH": "/usr/bin:/bin"})
    yield opened
    opened.close()


@pytest.mark.slow
def test_own_training_code_prints_what_its_page_shows(tmp_path: Path) -> None:
    """Where this fails, ``make docs-output`` writes the page anew."""
    page = OWN.read_text("utf-8").replace("$ mkdir arrow-net && cd arrow-net\n", "")
    place = tmp_path / "arrow-net"
    place.mkdir()
    assert mask(follow(page, Forked(place), installs=False)) == mask(page)


@pytest.mark.thorough
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_each_page_shows_what_its_commands_print(page: Path) -> None:
    if reason := tutorials.cannot_run_here(page):
        pytest.skip(reason)
    assert mask(here(page)) == mask(page.read_text("utf-8"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_what_the_pages_save_and_call_is_there(page: Path) -> None:
    found = list(blocks(page.read_text("utf-8")))
    for file in (block for block in found if isinstance(block, File) and block.name.endswith(".py")):
        compile(file.text, file.name, "exec")
    commands = [step.command for block in found if isinstance(block, Session) for step in block.steps]
    assert commands
    for command in commands:
        if called := re.match(r"s2mlp-(\w+) ", command):
            assert set(re.findall(r" (--[\w-]+)", command)) <= set(
                re.findall(r"--[\w-]+", support.run(called[1], "--help").out)
            )


def test_the_files_and_sessions_of_a_page_are_those_of_its_marked_blocks() -> None:
    file, first, second = blocks(PAGE)
    assert isinstance(file, File) and file.name == "hello.py"
    assert isinstance(first, Session) and [step.command for step in first.steps] == [
        "mkdir deep && cd deep",
        "pip install nothing",
    ]
    assert isinstance(second, Session) and second.steps[0].printed == ("2",)


def test_a_page_runs_in_one_shell_and_is_written_with_what_is_printed(shell: Shell) -> None:
    now = follow(PAGE, shell, installs=False)
    assert shell.directory.name == "deep"
    assert now == PAGE.replace("wc -l\n2", "wc -l\n1").replace(
        "error: no such file", "ls: cannot access 'nothing': No such file or directory"
    )


@pytest.mark.parametrize(
    ("session", "message"),
    [("$ false\n", "ended with 1"), ("$ true\nerror: shown\n", "ended with 0"), ("$ exit 3\n", "ended the shell")],
)
def test_a_command_that_fails_otherwise_than_shown_ends_the_run(shell: Shell, session: str, message: str) -> None:
    with pytest.raises(FailedError, match=message):
        follow(f"```console\n{session}```\n", shell, installs=True)


def test_a_line_after_those_left_out_must_be_printed(shell: Shell) -> None:
    with pytest.raises(NotFoundError, match="two"):
        follow("```console\n$ echo one\n…\ntwo\n```\n", shell, installs=True)


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("accuracy  89.50% on 200 images", "accuracy  91.25% on 200 images"),
        ("artifact  model.onnx, 83.7 kB, fp32", "artifact  model.onnx, 84.1 kB, fp32"),
        ("evidence  relative L2: paper 0.71, inplace 0", "evidence  relative L2: paper 0.35, inplace 0"),
    ],
)
def test_another_training_is_no_difference(line: str, other: str) -> None:
    assert (
        mask(line)
        == mask(other)
        != mask(line.replace("images", "pictures").replace("model", "net").replace("L2", "L1"))
    )
