"""``python -m s2mlp_deploy COMMAND …``: every command, where their scripts are not on PATH."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

from s2mlp_deploy.system.version import __version__

PREFIX = "s2mlp-"


def main() -> None:
    """Run the command that the first argument names; without one, list them."""
    scripts = {
        p.name.removeprefix(PREFIX): p for p in entry_points(group="console_scripts") if p.name.startswith(PREFIX)
    }
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in scripts:
        sys.argv = [f"python -m s2mlp_deploy {name}", *sys.argv[2:]]
        scripts[name].load()()
    elif name in ("-h", "--help"):
        commands = "".join(f"  {n:<8} {script.load().__doc__}\n" for n, script in sorted(scripts.items()))
        sys.stdout.write(f"Usage: python -m s2mlp_deploy COMMAND ...\n\nCommands, each with --help:\n{commands}")
    elif name == "--version":
        sys.stdout.write(f"s2mlp-deploy {__version__}\n")
    else:
        sys.stderr.write(f"error: no command {name!r}: expected {', '.join(sorted(scripts))}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
