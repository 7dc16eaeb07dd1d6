"""Format ``--help``: examples, then options in sections, with words for their types, in 80 columns and without any runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, get_args

import typer
from typer.core import TyperCommand


def section(title: str) -> Callable[..., Any]:
    """``typer.Option`` for the options of a section: those with the same title are shown together."""
    return partial(typer.Option, rich_help_panel=title)


def one_of(values: Any) -> str:
    """A sentence that lists the choices of a ``Literal`` type, or the items of a sequence."""
    return f"One of {_words(get_args(values) or values)}."


def listed(names: Iterable[str], joint: str) -> str:
    """``names`` as a sentence has them: ``a, b or c``, where ``joint`` is ``or``."""
    *first, last = names
    return f"{', '.join(first)} {joint} {last}" if first else last


class Command(TyperCommand):
    """A command whose help has sections, in the order in which its parameters name them; its epilog holds examples, one a line."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own parameters, without those that Typer adds where it completes words for a shell."""
        return [p for p in super().get_params(ctx) if p.name not in ("install_completion", "show_completion")]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """``[OPTIONS]`` and the arguments, as their help calls them."""
        parameters: list[Any] = self.get_params(ctx)
        return ["[OPTIONS]", *(p.metavar for p in parameters if p.param_type_name == "argument")]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write nothing: the examples stand above the options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, then the options by section; those without one come last."""
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {ctx.command_path} {line}\n" for line in self.epilog.splitlines()))
        sections: dict[str, list[tuple[str, str]]] = {}
        general: list[tuple[str, str]] = []
        parameters: list[Any] = [p for p in self.get_params(ctx) if not getattr(p, "hidden", False)]
        for parameter in parameters:
            if parameter.param_type_name == "argument":
                sections.setdefault("Arguments", []).append((parameter.metavar, parameter.help))
            elif title := getattr(parameter, "rich_help_panel", None):
                sections.setdefault(title, []).append(_record(parameter))
            else:
                general.append(_record(parameter))
        for heading, records in {**sections, "General": general}.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _record(option: Any) -> tuple[str, str]:
    """An option's names with its metavar, and its help with its default."""
    names = ", ".join(sorted(option.opts, key=len))
    if option.secondary_opts:
        names = f"{names} / {', '.join(option.secondary_opts)}"
    elif option.metavar:
        names = f"{names} {option.metavar}"
    default = option.default
    if option.secondary_opts and default is True:
        return names, f"{option.help} On by default."
    if default is None or isinstance(default, bool) or not option.show_default:
        return names, option.help
    shown = _words(default if isinstance(default, (list, tuple)) else [default])
    return names, f"{option.help} Default: {shown}."


def _words(values: Iterable[Any]) -> str:
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
