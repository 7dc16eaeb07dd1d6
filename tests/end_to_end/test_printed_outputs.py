"""README.md and docs print what the commands print; what may differ is named, and nothing else may."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers import printed_outputs
from helpers.printed_outputs import (
    ROOT,
    CrashedError,
    NotFoundError,
    Session,
    Step,
    cannot_run,
    documents,
    look,
    mask,
    sessions,
    shortened,
)

TUTORIALS = ROOT / "docs" / "tutorials"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")]
RUN = {*documents(), *TUTORIALS.glob("*.md")}

ROW = "│ noise         │       8 │     3.0e-07 │ 4e-06 │       100% │ ok │"


def test_documents_print_what_the_commands_print(tmp_path: Path) -> None:
    """Where this fails, ``make docs-output`` writes the documents anew."""
    found = {before: now for before, now in look(tmp_path) if isinstance(now, Session)}
    stale = [(mask(before.text), mask(now.text)) for before, now in found.items()]
    assert [now for _, now in stale] == [before for before, _ in stale], "make docs-output writes what is printed now"
    assert sum(cannot_run(session) is None for d in documents() for session in sessions(d)) == len(found) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_with_a_prompt_is_run(page: Path) -> None:
    """Where this fails, a block with ``$`` is no block of ``console``, or its page is not on the site."""
    shown = re.findall(r"^[ \t>]*\$ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    run = [step.command for session in sessions(page) for step in session.steps] if page in RUN else []
    assert shown == run


def test_the_python_of_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall("```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    exec(block, {})
    assert {path.name for path in tmp_path.iterdir()} == {"examples", "fashion_mnist-onnx-fp32"}


@pytest.mark.parametrize(
    ("line", "other"),
    [
        (ROW, ROW.replace("3.0e-07", "1.9e-08")),
        ("│ logits │     1.3e-07 │ ████                   │", "│ logits │     1.9e-07 │ █████                  │"),
        ("│ fp32 │ 0.626 │ 0.620 … 0.631 │ 1.00 │", "│ fp32 │  10.62 │ 10.59 … 10.99 │ 1.00 │"),
        ("│ fp32 │ 0.626 │ 0.620 … 0.631 │ 1.00 │", "│ fp32 │  12.3 │  11.9 … 14.0 │ 1.00 │"),
        ("│ 0.85 │  0.83 … 0.86 │", "│ 0.85 │ 0.58 … 1.03 ≈ │"),
        ("━━━━┳━━━━", "━━━━━┳━━━"),
        ("medians of 757 rounds, on 2 cores", "medians of 1,031 rounds, on 16 cores"),
        ("this onnxruntime 1.32.0 has", "this onnxruntime 1.25.1 has"),
    ],
)
def test_what_differs_between_machines_is_no_difference(line: str, other: str) -> None:
    assert line != other and mask(line) == mask(other)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (" 8 ", " 12 "),
        ("4e-06", "5e-06"),
        ("100%", "99%"),
        ("ok", "OFF"),
        ("noise", "noises"),
        ("3.0e-07", "nan"),
    ],
)
def test_all_else_is(old: str, new: str) -> None:
    assert mask(ROW) != mask(ROW.replace(old, new))
    assert mask("accuracy  89.50% on 200 images") != mask("accuracy  89.00% on 200 images")


def test_lines_that_are_left_out_stay_so() -> None:
    output = ["one", "two", "relative 1.0e-07", "four", "five"]
    assert shortened(Step("x", ("1", "…", "relative 2.5e-07", "4")), output) == ("one", "…", *output[2:])
    assert shortened(Step("x", ("…", "five")), output) == ("…", "five")
    assert shortened(Step("x", ("…",)), output) == ("…",)
    assert shortened(Step("x", ("1", "2")), output) == tuple(output)
    with pytest.raises(NotFoundError, match="six"):
        shortened(Step("x", ("…", "six")), output)


def test_a_traceback_is_not_written_into_a_document(tmp_path: Path) -> None:
    with pytest.raises(CrashedError, match="SystemError"):
        printed_outputs.run(Session(tmp_path, (Step("python -c 'raise SystemError'", ()),)), tmp_path, {})


def test_a_command_runs_again_unless_it_is_forced_to_make_the_same(tmp_path: Path) -> None:
    commands = ("sh -c 'date +%N'", "sh -c 'date +%N' --force", "sh -c 'date +%N'")
    ran = printed_outputs.run(Session(tmp_path, tuple(Step(command, ()) for command in commands)), tmp_path, {})
    first, forced, again = (step.printed for step in ran.steps)
    assert first == forced != again


def test_a_session_is_written_where_it_has_changed_and_only_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "README.md"
    start, end = (
        "# Page\n\n```console\n$ echo 1.5e-07\n2.0e-07\n```\n\n```\nno session\n```\n\n```console\n$ echo new\n",
        "```\n\nText.\n",
    )
    page.write_text(f"{start}old\n$ echo more\n{end}")
    monkeypatch.setattr(printed_outputs, "documents", lambda: [page])
    monkeypatch.setattr(printed_outputs, "ROOT", tmp_path)
    (tmp_path / "examples").mkdir()
    printed_outputs.main()
    assert page.read_text() == f"{start}new\n$ echo more\nmore\n{end}"
    assert capsys.readouterr().out.split("README.md")[0].startswith("as before")
