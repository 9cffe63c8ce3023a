"""The command line: every command is a function of the Python API, its options that function's signature."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import os
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

from selfsup.errors import RunFailed, UserError, unknown

COMMANDS = {
    "demo": "selfsup.demo:demo",
    "tasks": "selfsup.catalogue:tasks",
    "show": "selfsup.showing:show",
    "pretrain": "selfsup.pretraining:pretrain",
    "evaluate": "selfsup.evaluation:evaluate",
    "embed": "selfsup.embedding:embed",
    "export": "selfsup.exporting:export",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 2 for bad input; 1 for a failed run; 128 + the signal's number for a stopped one."""
    words = list(sys.argv[1:] if args is None else args)
    as_json = "--json" in words
    words = [word for word in words if word != "--json"]
    try:
        result = _run(words)
    except UserError as error:
        return _fail(str(error), 2)
    except RunFailed as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        number = getattr(error, "number", None)  # train.signals.Interrupted, without importing torch to name it
        if type(error).__name__ != "Interrupted" or number is None:
            raise
        return _fail(str(error), 128 + int(number))
    if os.environ.get("RANK", "0") != "0":
        return 0  # torchrun: one process speaks
    if as_json and result is not None:
        print(json.dumps(result.as_json()))
    elif result is not None:
        from rich.console import Console

        from selfsup.printing import WIDTH

        Console(width=None if sys.stdout.isatty() else WIDTH).print(result, highlight=False)
    return 0


def _run(words: list[str]) -> Any:
    import tyro

    if not words or words[0] not in COMMANDS:
        if words and not words[0].startswith("-"):
            raise unknown("command", words[0], COMMANDS)
        functions = {name: _without_hyperparameters(_function(name)) for name in COMMANDS}
        return tyro.extras.subcommand_cli_from_dict(
            functions, prog="selfsup", description=_ABOUT, args=words or ["--help"]
        )
    function = _function(words[0])
    prog = f"selfsup {words[0]}"
    known = _without_hyperparameters(function)
    with _one_line(words[1:]):
        bound, rest = tyro.cli(known, prog=prog, args=words[1:], return_unknown_args=True)
    arguments, options = bound
    if not _takes_hyperparameters(function):
        if rest:
            raise unknown(f"option of {words[0]}", rest[0], _options(function))
        return function(*arguments, **options)
    return function(*arguments, **options, **_hyperparameters(prog, arguments, options, rest, _options(function)))


def _function(command: str) -> Callable[..., Any]:
    module, _, name = COMMANDS[command].partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _takes_hyperparameters(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _options(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return ["--" + p.name.replace("_", "-") for p in parameters if p.kind is p.KEYWORD_ONLY]


def _without_hyperparameters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of the same options, less **hyperparameters, that returns what it was called with."""
    parameters = inspect.signature(function).parameters.values()
    return _recorder([_readable(p, function) for p in parameters if p.kind is not p.VAR_KEYWORD], function)


def _recorder(parameters: list[inspect.Parameter], like: Callable[..., Any] | None = None) -> Callable[..., Any]:
    def bound(*arguments: Any, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return arguments, options

    bound.__doc__, bound.__name__ = (like.__doc__, like.__name__) if like else (None, "options")
    bound.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    bound.__annotations__ = {p.name: p.annotation for p in parameters}
    return bound


def _readable(parameter: inspect.Parameter, function: Callable[..., Any]) -> inspect.Parameter:
    """Resolve the annotation, and show DATA instead of STR, INT instead of {None}|INT."""
    import tyro

    kind = eval(parameter.annotation, function.__globals__)
    names = [getattr(part, "__name__", "") for part in typing.get_args(kind) or (kind,)]
    shown = parameter.name if parameter.kind is parameter.POSITIONAL_ONLY else names[0]
    if kind is bool or typing.get_origin(kind) is Literal:
        return parameter.replace(annotation=kind)
    aliases = ("-o",) if parameter.name == "out" else ()
    return parameter.replace(annotation=Annotated[kind, tyro.conf.arg(metavar=shown.upper(), aliases=aliases)])


def _hyperparameters(
    prog: str, arguments: Sequence[Any], options: dict[str, Any], words: list[str], common: list[str]
) -> dict[str, Any]:
    """Parse the words that are left as options of the task, typed by its constructor."""
    if not words:
        return {}
    import tyro

    from selfsup.tasks import find_task

    name = options["task"] if "task" in options else arguments[0]
    parameters = find_task(name).hyperparameters()
    known = ["--" + key.replace("_", "-") for key in parameters]
    for word in words:
        if word.startswith("--") and word.partition("=")[0].replace("_", "-") not in known:
            raise unknown(f"option of {prog} and of the task {name}", word, [*known, *common])
    given = {word.partition("=")[0][2:].replace("-", "_") for word in words if word.startswith("--")}

    with _one_line(words):
        values: dict[str, Any] = tyro.cli(_recorder([parameters[key] for key in given]), prog=prog, args=words)[1]
    return values


@contextlib.contextmanager
def _one_line(words: Sequence[str]) -> Iterator[None]:
    """Turn tyro's framed error messages into one line."""
    if "--help" in words or "-h" in words:
        yield
        return
    written, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "1000"  # so that tyro does not wrap what it says
    try:
        with contextlib.redirect_stderr(written):
            yield
    except SystemExit:
        lines = [line.strip("│╭╮╰╯─ ") for line in written.getvalue().splitlines()]
        told = [line for line in lines[1:] if line and not line.startswith("For full helptext")]
        raise UserError(f"{told[0].rstrip(':')}; see --help" if told else "see --help") from None
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _fail(message: str, status: int) -> int:
    print(f"selfsup: {message}", file=sys.stderr)
    return status


_ABOUT = """Learn representations from data that nobody labelled, and learn whether they help.

Every command takes --help; every result is JSON with --json. Start with `selfsup demo`."""
