"""The command line: every command is a function of the Python API, its options that function's signature."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import os
import re
import signal
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from selfsup.errors import RunFailed, UserError, unknown

COMMANDS = (
    "demo", "tasks", "show", "pretrain", "audit", "evaluate", "compare", "embed", "search", "explore", "export",
    "bench", "report", "suggest", "label",
)  # fmt: skip


def main(args: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 2 for bad input; 1 for a failed run; 128 + the signal's number for a stopped one."""
    words = list(sys.argv[1:] if args is None else args)
    as_json = "--json" in words
    words = [word for word in words if word != "--json"]
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            result = _run(words)
        try:
            _print(result, as_json)
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it exits
            raise
    except UserError as error:
        return _fail(str(error), 2)
    except RunFailed as error:
        return _fail(str(error), 1)
    except SystemExit as stop:  # --help and --tyro-print-completion
        return int(stop.code or 0)
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return _fail("interrupted", 128 + signal.SIGINT)
    except OSError as error:
        return _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part), 1)
    except Exception as error:
        number = getattr(error, "number", None)  # train.signals.Interrupted, without importing torch to name it
        if type(error).__name__ == "Interrupted" and number is not None:
            return _fail(str(error), 128 + int(number))
        return _fail(_machine(error), 1)
    return 0


def _machine(error: Exception) -> str:
    """Return one line for what the machine did, not the program; raise any other error."""
    if isinstance(error, MemoryError):
        return f"this computer has no memory left: {error}"
    if "torch" in sys.modules:
        from selfsup.train.failures import device_lost, out_of_memory

        first = (str(error).splitlines() or [""])[0]
        if out_of_memory(error):
            return f"no memory left: {first}"
        if device_lost(error):
            return f"the device failed: {first}"
    raise error


def _run(words: list[str]) -> Any:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return None
    import tyro

    if words[0] not in COMMANDS:
        if not words[0].startswith("-"):
            raise unknown("command", words[0], COMMANDS)
        functions = {name: _recorder(_function(name)) for name in COMMANDS}
        with _one_line(words):
            return tyro.extras.subcommand_cli_from_dict(functions, prog="selfsup", description=_ABOUT, args=words)
    command, *words = words
    function = _function(command)
    known = _options(function)
    helping = "--help" in words or "-h" in words
    asked = {name for word in words if (name := _option(word))} - {*_accepted(known), "help", "tyro_print_completion"}
    more: dict[str, Option] = {}
    if _takes_more(function) and (asked or helping):
        more = _further_options(function, words, explain=not asked)
    for name in sorted(asked - _accepted({name: option.parameter for name, option in more.items()})):
        raise unknown(f"option of {command}", _flag(name), map(_flag, [*known, *more]))
    if helping:
        words = ["--help"]  # or tyro leaves out the arguments that were given
    else:  # what was not given is left to the task's defaults
        more = {name: option for name, option in more.items() if {name, f"no_{name}"} & asked}
    with _one_line(words):
        arguments, options = tyro.cli(_recorder(function, more), prog=f"selfsup {command}", args=words)
    return function(*arguments, **options)


def _overview() -> str:
    """Return what there is, in words; without tyro, which takes longer to import than all of this."""
    told = {name: (inspect.getdoc(_function(name)) or "").splitlines()[0] for name in COMMANDS}
    commands = "\n".join(f"  {name:9} {text}" for name, text in told.items())
    return f"usage: selfsup COMMAND [OPTIONS]\n\n{_ABOUT}\n\n{commands}"


def _print(result: Any, as_json: bool) -> None:
    if result is None or os.environ.get("RANK", "0") != "0":  # torchrun: one process speaks
        return
    if as_json:
        print(json.dumps(result.as_json()))
        return
    from rich.console import Console

    from selfsup.base.printing import WIDTH

    shown, width = result.__rich__(), None if sys.stdout.isatty() else WIDTH
    console = Console(width=width, markup=False, emoji=False, highlight=False)  # a path may hold [brackets]
    with console.capture() as text:  # or rich itself decides what a closed pipe means
        console.print(shown, soft_wrap=isinstance(shown, str))
    sys.stdout.write(text.get())


def _function(command: str) -> Callable[..., Any]:
    """Return the function of a command, which has its name, from its file."""
    function: Callable[..., Any] = getattr(importlib.import_module(f"selfsup.commands.{command}"), command)
    return function


def _takes_more(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {n: p for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY}


def _accepted(parameters: Mapping[str, inspect.Parameter]) -> set[str]:
    """Return the names as which options can be given: a switch also as no_NAME."""
    switches = {f"no_{name}" for name, parameter in parameters.items() if parameter.annotation in (bool, "bool")}
    return {*parameters, *switches}


def _option(word: str) -> str:
    """Return the name of the option that a word is, '' for a value."""
    return word[2:].partition("=")[0].replace("-", "_") if word.startswith("--") else ""


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _recorder(
    function: Callable[..., Any], more: Mapping[str, Option] | None = None
) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return a function with the options of `function` (and `more` for **options) that returns what it got."""
    parameters = inspect.signature(function).parameters.values()
    shown = [_readable(p, function) for p in parameters if p.kind is not p.VAR_KEYWORD]
    shown += [_explained(option) for option in (more or {}).values()]

    def bound(*arguments: Any, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return arguments, options

    bound.__doc__, bound.__name__ = function.__doc__, function.__name__
    bound.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    bound.__annotations__ = {p.name: p.annotation for p in shown}
    return bound


def _explained(option: Option) -> inspect.Parameter:
    """Return an option of a task or a kind of data with its help."""
    import tyro

    kind = option.parameter.annotation
    return option.parameter.replace(annotation=Annotated[kind, tyro.conf.arg(help=option.help or None)])


def _readable(parameter: inspect.Parameter, function: Callable[..., Any]) -> inspect.Parameter:
    """Resolve the annotation, and show DATA instead of STR, INT instead of {None}|INT."""
    import tyro

    kind = eval(parameter.annotation, function.__globals__)
    names = [getattr(part, "__name__", "") for part in typing.get_args(kind) or (kind,)]
    shown = parameter.name if parameter.kind is parameter.POSITIONAL_ONLY else names[0]
    if kind is bool or typing.get_origin(kind) is Literal:
        return parameter.replace(annotation=kind)
    aliases = ("-o",) if parameter.name == "out" else (f"-{parameter.name}",) if len(parameter.name) == 1 else ()
    return parameter.replace(annotation=Annotated[kind, tyro.conf.arg(metavar=shown.upper(), aliases=aliases)])


def _further_options(function: Callable[..., Any], words: list[str], explain: bool) -> dict[str, Option]:
    """Return the options of the task that the words name, and of its kind of data; to `explain` one, if it is named.

    A command without a task takes those of every kind of data.
    """
    from selfsup.data.kinds import spec_help, spec_options
    from selfsup.tasks import TASKS, find_task
    from selfsup.tasks.options import read_args

    known = _options(function)
    default: str = known["task"].default if "task" in known else ""
    named, values, before = "", [], ""
    for word in words:
        if before == "task" or _option(word) == "task":
            named = word.rpartition("=")[2] if _option(word) else word
        elif not word.startswith("-") and (before not in known or known[before].annotation == "bool"):
            values.append(word)  # the command's own, or the value of an option of the task
        before = _option(word) if "=" not in word else ""
    if "task" not in known and "task" in inspect.signature(function).parameters:
        named = next((word for word in values if word in TASKS or ":" in word), values[0] if values else "")
    name = named or default
    kind, found = "any", dict[str, Option]()
    if name and not (explain and not named):
        task = find_task(name)
        said, kind = read_args(task.__doc__ or ""), task.kind
        found = {key: Option(p, said.get(key, "")) for key, p in task.hyperparameters().items()}
    said = read_args(spec_help(kind))
    return {key: Option(_keyword(p), said.get(key, "")) for key, p in spec_options(kind).items()} | found


class Option(typing.NamedTuple):
    """An option of a task or of a kind of data, and its help."""

    parameter: inspect.Parameter
    help: str


def _keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=parameter.KEYWORD_ONLY)


@contextlib.contextmanager
def _one_line(words: Sequence[str]) -> Iterator[None]:
    """Turn tyro's framed error messages into one line."""
    written, before = io.StringIO(), os.environ.get("COLUMNS")
    if not {"--help", "-h"} & set(words):
        os.environ["COLUMNS"] = "1000"  # so that tyro does not wrap what it says
    try:
        with contextlib.redirect_stderr(written):
            yield
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_plain(written.getvalue())}; see --help") from None
    finally:
        os.environ.pop("COLUMNS", None)
        if before is not None:
            os.environ["COLUMNS"] = before


def _plain(framed: str) -> str:
    """Return the gist of tyro's framed message."""
    lines = [line.strip(" │╭╮╰╯─|+") for line in framed.splitlines()]
    told = [line for line in lines[1:] if line.strip("-")] or ["these arguments cannot be read"]
    if told[0].startswith("Missing from"):
        return f"{told[1]} is missing: {told[2].removesuffix('(required)').rstrip(' .')}"
    mistaken = re.match(r"Error parsing (\S+): .*\{None\}\|(\w+) could be instantiated from \[(.*)\]", told[0])
    return "{} takes {}, not {}".format(*mistaken.groups()) if mistaken else told[0].rstrip(".:")


def _fail(message: str, status: int) -> int:
    rank = os.environ.get("RANK", "0")
    if rank == "0" or status < 128:  # all processes stop together when they are asked to, and one says so
        who = "selfsup:" if rank == "0" else f"selfsup, process {rank}:"
        print(who, " ".join(message.splitlines()), file=sys.stderr)
    return status


_ABOUT = """Learn representations from data that nobody labelled, and learn whether they help.

Every command takes --help; every result is JSON with --json. Start with `selfsup demo`."""
