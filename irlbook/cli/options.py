"""Options of a command, made from the fields of dataclasses; the comment of a field is its help.

A `Part` is one dataclass of a command. An instance gives the defaults of that command; a class has
fields that must be given. A field that is a dataclass itself is taken apart.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

__all__ = [
    "Command",
    "ENDLESS",
    "Knob",
    "NESTED",
    "Part",
    "TEXTS",
    "build",
    "command",
    "comments",
    "knobs",
    "next_step",
    "parameters",
    "with_example",
    "working",
]

NESTED = "Training"  # the panel of a dataclass within another
TEXTS = {"prompt"}  # options whose text is no path, even where it begins with ~
ENDLESS = {"max_grad_norm"}  # options that mean something when they are infinite


@dataclass(frozen=True)
class Part:
    """One dataclass of a command, and what the command makes of its fields.

    Attributes:
        config: a dataclass, or an instance with the command's own defaults.
        panel: the heading above its options.
        argument: what the work calls the dataclass; without, its fields are arguments themselves.
        names: {field: option} where they differ; "--on/--off" names both flags of a bool.
        without: fields that mean nothing to the command, or that it fills in itself.
        choices: {field: choices} where the command offers fewer than the field.
        meaning: {field: text} what None stands for.
    """

    config: Any
    panel: str
    argument: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    without: Sequence[str] = ()
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    meaning: Mapping[str, str] = field(default_factory=dict)


class Knob(NamedTuple):
    """A field that is an option: its dataclass, itself, its type, its default (... for none)."""

    owner: type
    field: Field[Any]
    hint: Any
    default: Any
    outermost: bool


def knobs(part: Part, config: Any = None) -> Iterator[Knob]:
    """The fields of a part that are options, those of the dataclasses in it too."""
    config = part.config if config is None else config
    owner = config if isinstance(config, type) else type(config)
    hints = get_type_hints(owner)
    for one in fields(owner):
        if one.name in part.without:
            continue
        default = _default(config, one)
        if is_dataclass(default):
            yield from knobs(part, default)
        else:
            yield Knob(owner, one, hints[one.name], default, config is part.config)


def parameters(parts: Sequence[Part]) -> list[inspect.Parameter]:
    """The parts' options as typer reads them; those that must be given come first."""
    made = [_parameter(part, knob) for part in parts for knob in knobs(part)]
    return sorted(made, key=lambda one: one.default is not inspect.Parameter.empty)


def build(part: Part, given: Mapping[str, Any], config: Any = None) -> Any:
    """The dataclass with what was given on the command line."""
    config = part.config if config is None else config
    values = {}
    for one in fields(config):
        if one.name not in part.without:
            default = _default(config, one)
            nested = is_dataclass(default)
            value = build(part, given, default) if nested else given[_name(part, one.name)]
            values[one.name] = value
    return config(**values) if isinstance(config, type) else replace(config, **values)


@cache
def comments(owner: type) -> dict[str, str]:
    """{field: its comment}: what stands behind it, and in the lines of comment below it."""
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__[:-1]):
        name = ""
        for line in inspect.getsource(base).splitlines():
            if match := re.match(r"    (\w+): [^#]*?  # (.+)", line):
                name = match[1]
                found[name] = match[2]
            elif name and (more := re.match(r"    # (.+)", line)):
                found[name] += f" {more[1]}"
            else:
                name = ""
    return found


class Command(TyperCommand):
    """A command whose values are tidied in one place: ~ is a home, and a number is a finite one."""

    def invoke(self, ctx: Any) -> Any:
        for option in self.params:
            given = ctx.params.get(option.name)
            tidy = [self._tidy(option, one) for one in _each(given)]
            if isinstance(given, list | tuple):
                ctx.params[option.name] = type(given)(tidy)
            elif tidy:
                ctx.params[option.name] = tidy[0]
        return super().invoke(ctx)

    def _tidy(self, option: Any, value: Any) -> Any:
        wrong = None
        if isinstance(value, float) and not math.isfinite(value):
            if math.isnan(value) or option.name not in ENDLESS:
                wrong = "it must be a finite number"
        elif isinstance(value, float) and 1e30 < abs(value) < math.inf:
            wrong = "the number is too large; it must lie below 1e30"
        elif isinstance(value, int) and abs(value) >= 1 << 63:
            wrong = "the number is too large; it must lie below 2^63"
        elif isinstance(value, int) and value < 0 and option.name == "seed":
            wrong = "a seed is 0 or more"
        elif isinstance(value, str | Path) and str(value).startswith("~"):
            if option.name in TEXTS:
                return value
            value = type(value)(os.path.expanduser(value))
            if str(value).startswith("~"):
                wrong = f"there is no user {Path(value).parts[0][1:]}; a folder of this name is ./~"
        if wrong:
            hint = (
                option.opts[0] if option.param_type_name == "option" else option.human_readable_name
            )
            raise typer.BadParameter(wrong, param_hint=f"'{hint}'")
        return value


def _each(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _default(config: Any, one: Field[Any]) -> Any:
    if not isinstance(config, type):
        return getattr(config, one.name)
    if one.default_factory is not MISSING:
        return one.default_factory()
    return ... if one.default is MISSING else one.default


def _flags(part: Part, name: str) -> str:
    """--name, or --on/--off of a bool."""
    flags = part.names.get(name, name)
    return flags if flags.startswith("--") else f"--{flags.replace('_', '-')}"


def _name(part: Part, name: str) -> str:
    """The keyword under which typer gives the option of a field."""
    flags = part.names.get(name, name)
    return name if flags.startswith("--") else flags


def _parameter(part: Part, knob: Knob) -> inspect.Parameter:
    name = knob.field.name
    hint = _typer_type(knob.hint)
    if name in part.choices:
        hint = Literal[tuple(part.choices[name])]
    flags = _flags(part, name)
    if hint is bool and "/" not in flags:
        flags = f"{flags}/--no-{flags[2:]}"
    option = typer.Option(
        flags,
        help=" ".join(_help(comments(knob.owner).get(name, ""), _choices(hint))),
        metavar=_metavar(hint),
        rich_help_panel=part.panel if knob.outermost else NESTED,
        show_default=(part.meaning.get(name) if knob.default is None else None) or True,
    )
    empty = knob.default is ...
    return inspect.Parameter(
        _name(part, name),
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if empty else knob.default,
        annotation=Annotated[hint, option],
    )


def _help(comment: str, choices: Sequence[str]) -> Iterator[str]:
    """Sentences: the comment, and what may be chosen."""
    if comment:
        yield f"{comment[0].upper()}{comment[1:]}."
    if choices:
        yield f"One of {', '.join(choices)}."


def _choices(hint: Any) -> tuple[str, ...]:
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((found for one in get_args(hint) if (found := _choices(one))), ())


def _metavar(hint: Any) -> str | None:
    """A short one where typer's would crowd the help out; choices stand in the help."""
    if _choices(hint):
        return "<name>"
    return "<a b>" if get_origin(hint) is tuple else " " if hint is bool else None


def _typer_type(hint: Any) -> Any:
    """A type that typer reads: a name or path is text, and several are a list."""
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(one for one in get_args(hint) if one is not Path)]  # noqa: UP007
    if get_origin(hint) is Sequence:
        return list[str]
    return hint


def with_example(
    app: typer.Typer, example: str, panel: str | None = None, name: str | None = None, **more: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command whose help ends with an example."""
    epilog = f"Example: {example}"
    return app.command(name, cls=Command, epilog=epilog, rich_help_panel=panel, **more)


def working(text: str) -> None:
    """Say on a terminal what takes its time now; scripts and pipes are spared."""
    if sys.stderr.isatty():
        typer.echo(f"{text} ...", err=True)


def next_step(command: str, why: str = "", err: bool = False) -> None:
    """Say what to do next: a command to copy, and behind it a remark that a shell skips."""
    typer.echo(f"next: {command}{f'  # {why}' if why else ''}", err=err)


def command(
    app: typer.Typer,
    name: str,
    summary: str,
    example: str,
    parts: Sequence[Part],
    work: Callable[..., None],
) -> None:
    """Register `name`, which calls `work` with what the parts make."""

    def run(**given: Any) -> None:
        arguments: dict[str, Any] = {}
        for part in parts:
            made = build(part, given)
            own = {k: v for k, v in vars(made).items() if k not in part.without}
            arguments |= {part.argument: made} if part.argument else own
        work(**arguments)

    run.__doc__ = summary
    run.__signature__ = inspect.Signature(parameters(parts))  # type: ignore[attr-defined]
    with_example(app, example, name=name)(run)
