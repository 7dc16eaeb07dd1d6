"""The options of formats on the command line: a flag for each option of the formats of this project, ``-O NAME=VALUE`` for any."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from s2mlp_deploy.cli.help import listed, one_of, section
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.options import Metavar, Options


def with_flags(function: Callable[..., None], *, before: str) -> Callable[..., None]:
    """``function``, whose ``**`` parameter takes the flags, with each of them in its signature, before the parameter ``before``.

    An option that is called like a parameter of the function is left to that.
    """

    @functools.wraps(function)
    def flagged(**values: Any) -> None:
        function(**values)

    own = inspect.signature(function, eval_str=True)
    known = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    place = next(i for i, parameter in enumerate(known) if parameter.name == before)
    flags = [parameter for parameter in _parameters() if parameter.name not in own.parameters]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*known[:place], *flags, *known[place:])]
    flagged.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return flagged


def chosen(flags: Mapping[str, Any], texts: Sequence[str], formats: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The options of each of ``formats``: the values of ``flags`` that were given, and ``texts`` as in ``-O NAME=VALUE``.

    Raises:
        UsageError: for an option that none of the formats has, or that is given twice.
    """
    given = {name: value for name, value in flags.items() if value is not None and value is not False}
    spelled = {name: "--" + name.replace("_", "-") for name in given}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"-O {text!r}: expected NAME=VALUE")
        if name in given:
            raise UsageError(f"-O {name}: given twice")
        given[name], spelled[name] = value, f"-O {name}"
    known = {name: registry.find(name).options.model_fields for name in formats}
    if unused := [spelled[name] for name in given if not any(name in fields for fields in known.values())]:
        raise UsageError(f"{', '.join(unused)}: not for --format {listed(formats, 'or')}")
    return {format: {n: value for n, value in given.items() if n in fields} for format, fields in known.items()}


def _parameters() -> Iterator[inspect.Parameter]:
    """A parameter for each option, those of formats that share some together."""
    for group in _groups():
        option = section(f"With --format {listed(group, 'or')}")
        owners: dict[str, list[str]] = {}
        for format, model in group.items():
            for name in model.model_fields:
                owners.setdefault(name, []).append(format)
        for name, having in owners.items():
            field = group[having[0]].model_fields[name]
            only = f" Only {listed(having, 'and')}." if len(having) < len(group) else ""
            annotation, default = _typed(name, field, option, f"{_help(field)}{only}")
            yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _groups() -> list[dict[str, type[Options]]]:
    """The models of the formats of this project that have options, by name, in groups that share some."""
    groups: list[dict[str, type[Options]]] = []
    for name, model in sorted(registry.built_in_options().items()):
        sharing = (
            g for g in groups if any(model.model_fields.keys() & other.model_fields.keys() for other in g.values())
        )
        if (group := next(sharing, None)) is not None:
            group[name] = model
        else:
            groups.append({name: model})
    return groups


def _typed(name: str, field: FieldInfo, option: Callable[..., Any], text: str) -> tuple[Any, object]:
    """The annotation and the default of an option's parameter: its model parses the text and reports errors."""
    flag = "--" + name.replace("_", "-")
    if field.annotation is bool:
        return Annotated[bool, option(flag, help=text)], False
    metavar = next((item.text for item in field.metadata if isinstance(item, Metavar)), "VALUE")
    return Annotated[str | None, option(flag, metavar=metavar, help=text)], None


def _help(field: FieldInfo) -> str:
    sentences = [field.description or ""]
    for kind in (field.annotation, *get_args(field.annotation)):  # a choice, or one that may be left out
        if get_origin(kind) is Literal:
            sentences.append(one_of(get_args(kind)))
    if field.default not in (None, ()) and field.default is not False:
        sentences.append(f"Default: {field.default}.")
    return " ".join(sentences)
