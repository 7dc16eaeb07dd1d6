"""``s2mlp COMMAND …``, also ``python -m s2mlp_deploy COMMAND …``: list every command, run one, complete words for shells."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from s2mlp_deploy.system.version import __version__

PREFIX = "s2mlp-"
SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def main() -> None:
    """Run the command that the first argument names; without one, list them."""
    scripts = {
        p.name.removeprefix(PREFIX): p for p in entry_points(group="console_scripts") if p.name.startswith(PREFIX)
    }
    program = "python -m s2mlp_deploy" if Path(sys.argv[0]).stem == "__main__" else "s2mlp"
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in scripts:
        sys.argv = [f"{program} {name}", *sys.argv[2:]]
        scripts[name].load()()
    elif name in ("-h", "--help"):
        commands = "".join(f"  {n:<8} {script.load().__doc__}\n" for n, script in sorted(scripts.items()))
        sys.stdout.write(
            f"Usage: {program} COMMAND ...\n\nCommands, each with --help, and each also s2mlp-COMMAND:\n{commands}\n"
            f"completion SHELL prints the script by which a shell completes their options;\nSHELL is one of {', '.join(SHELLS)}.\n"
        )
    elif name == "completion":
        _print_completion(scripts, sys.argv[2:])
    elif name == "--version":
        sys.stdout.write(f"s2mlp-deploy {__version__}\n")
    else:
        sys.stderr.write(f"error: no command {name!r}: expected {', '.join(sorted(scripts))}\n")
        sys.exit(2)


def _print_completion(scripts: dict[str, EntryPoint], arguments: list[str]) -> None:
    """Print what makes a shell complete the options of every command: each command prints its own part."""
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        sys.stderr.write(f"error: completion takes the name of a shell: expected {', '.join(SHELLS)}\n")
        sys.exit(2)
    from s2mlp_deploy.cli.terminal import completion_variable

    for script in scripts.values():
        sys.argv = [script.name]
        os.environ[completion_variable(script.name)] = f"source_{arguments[0]}"
        with suppress(SystemExit):
            script.load()()


if __name__ == "__main__":
    main()
