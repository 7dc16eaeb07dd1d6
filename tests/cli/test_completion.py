"""Shells complete the commands' options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from s2mlp_deploy.__main__ import SHELLS
from s2mlp_deploy.cli.terminal import completion_variable

COMMANDS = ("bench", "doctor", "export", "inspect", "repair", "sweep", "tune", "verify")


def script(shell: str) -> subprocess.CompletedProcess[str]:
    """``python -m s2mlp_deploy completion SHELL``."""
    return subprocess.run([sys.executable, "-m", "s2mlp_deploy", "completion", shell], capture_output=True, text=True)


def test_bash_completes_the_options_of_each_command(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(script("bash").stdout)
    asked = "; ".join(
        f"COMP_WORDS=(s2mlp-{name} --js); COMP_CWORD=1; _s2mlp_{name}_completion s2mlp-{name}; echo {name} ${{COMPREPLY[0]}}"
        for name in ("verify", "export")
    )
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-c", f". {tmp_path}/script; {asked}"], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "verify --json\nexport --json\n"


def test_there_is_a_script_for_each_shell_and_no_other() -> None:
    assert "fish" in SHELLS
    done = script("fish")
    assert all(f"--command s2mlp-{name} " in done.stdout for name in COMMANDS) and not done.stderr
    refused = script("tcsh")
    assert refused.returncode == 2 and "expected bash, zsh, fish" in refused.stderr and not refused.stdout


def test_a_variable_for_another_command_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(completion_variable("s2mlp-export"), "complete_bash")
    done = subprocess.run([sys.executable, "-m", "s2mlp_deploy", "doctor", "--help"], capture_output=True, text=True)
    assert done.stdout.startswith("Usage: python -m s2mlp_deploy doctor") and "install-completion" not in done.stdout
