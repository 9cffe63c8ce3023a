"""The command line: every command is a function of the Python API, and its options are the function's arguments."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import json
import os
import re
import signal
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from selfsup import __version__
from selfsup.base.notes import hearing
from selfsup.base.opening import data_opened
from selfsup.base.quiet import quiet_libraries
from selfsup.base.ranks import is_first, launched
from selfsup.base.terminal import ready_streams
from selfsup.errors import RunFailed, UserError, unknown
from selfsup.manual import SECTIONS, Line, further_line, overview, own_lines, page

COMMANDS = tuple(command for commands in SECTIONS.values() for command in commands)


KINDS = {"int": "a whole number", "float": "a number"}  # of values, as tyro calls them
VIEWS = "Data and views"  # heading of the options of a kind of data


def main(args: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 2 for bad input; 1 for a failed run; 128 + the signal's number for a stopped one."""
    ready_streams()
    words = list(sys.argv[1:] if args is None else args)
    words, values = _split(words)
    as_json = "--json" in words
    words = [word for word in words if word != "--json"]
    try:
        words, opening = _opening(words)
        words += values
        aside = contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()
        with aside, hearing(aloud=True) as notes, data_opened(**opening), quiet_libraries():
            result = _run(words)
        try:
            _print(result, as_json, notes)
            sys.stdout.flush()
        except OSError:
            with contextlib.suppress(OSError):  # a stream of the caller's own may have no number
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


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words up to `--`, and the rest, of which none is an option, whatever it begins with."""
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place:]


def _opening(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the words without the options of every command that opens data, and these options."""
    rest: list[str] = []
    given: dict[str, Any] = {}
    waiting = iter(words)
    for word in waiting:
        if word == "--follow-links":
            given["follow_links"] = True
        elif (name := word.partition("=")[0]) in ("--pages", "--window"):
            given[name[2:]] = word.partition("=")[2] if "=" in word else next(waiting, "")
        else:
            rest.append(word)
    return rest, given


def _machine(error: Exception) -> str:
    """Return one line for an error of the machine, not of the program; raise any other error."""
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
    if words[0] == "--version":
        print(f"selfsup {__version__}")
        return None
    import tyro

    if words[0] not in COMMANDS:
        if not words[0].startswith("-"):
            raise unknown("command", words[0], COMMANDS)
        functions = {name: _recorder(_function(name)) for name in COMMANDS}
        with _one_line():
            return tyro.extras.subcommand_cli_from_dict(functions, prog="selfsup", description=_ABOUT, args=words)
    command, *words = words
    function = _function(command)
    known = _options(function)
    before, _ = _split(words)
    helping = "--help" in before or "-h" in before
    asked = {name for word in before if (name := _option(word))} - {*_accepted(known), "help", "tyro_print_completion"}
    more: dict[str, Further] = {}
    if _takes_more(function) and (asked or helping):
        more = _further_options(function, words, explain=not asked)
    for name in sorted(asked - _accepted({name: option.parameter for name, option in more.items()})):
        raise unknown(f"option of {command}", _flag(name), map(_flag, [*known, *more]))
    if helping:
        print(page(command, function, _lines(function, known, more)))
        return None
    # what was not given is left to the task's defaults
    more = {name: option for name, option in more.items() if {name, f"no_{name}"} & asked}
    with _one_line():
        arguments, options = tyro.cli(_recorder(function, more), prog=f"selfsup {command}", args=words)
    _say_what_is_read(function, arguments, options)
    return function(*arguments, **options)


def _say_what_is_read(function: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any]) -> None:
    """Say at once what is read, in a terminal: importing torch and looking through a folder take their time."""
    data = dict(zip(inspect.signature(function).parameters, arguments, strict=False)) | dict(options)
    if data.get("data") is not None and sys.stderr.isatty() and is_first():
        print(f"reading {data['data']} …", file=sys.stderr)


def _overview() -> str:
    """Return the list of commands."""
    return overview(_ABOUT, {name: (inspect.getdoc(_function(name)) or "").splitlines()[0] for name in COMMANDS})


def _lines(
    function: Callable[..., Any], known: Mapping[str, inspect.Parameter], more: Mapping[str, Further]
) -> list[Line]:
    """Return what the help of a command lists: its own arguments and options, and those that its task and data add."""
    said = _explanations(function)
    added = [further_line(option.parameter, option.help, option.group) for option in more.values()]
    typed = {name: option.replace(annotation=_annotation(option, function)) for name, option in known.items()}
    return [*own_lines(function, said, typed), *added]


def _annotation(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    return eval(parameter.annotation, function.__globals__)


def _print(result: Any, as_json: bool, notes: Sequence[str]) -> None:
    if result is None or not is_first():  # of several processes one speaks
        return
    if as_json:
        told = result.as_json()
        if notes and isinstance(told, dict):
            told = {**told, "notes": [*told.get("notes", []), *notes]}
        print(json.dumps(told))
        return
    from rich.console import Console

    from selfsup.base.printing import WIDTH, write

    columns = os.environ.get("COLUMNS", "")
    width = None if sys.stdout.isatty() else int(columns) if columns.isdecimal() and int(columns) else WIDTH
    shown = result.__rich__()
    console = Console(width=width, markup=False, emoji=False, highlight=False)  # a path may hold [brackets]
    with console.capture() as text:  # or rich itself decides what a closed pipe means
        write(console, shown)
    sys.stdout.write(text.get())


def _function(command: str) -> Callable[..., Any]:
    """Return the function of a command; function and module have its name."""
    return getattr(importlib.import_module(f"selfsup.commands.{command}"), command)


def _takes_more(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def _options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY and not _only_python(p)}


def _only_python(parameter: inspect.Parameter) -> bool:
    """Return whether no word of a command line can be the value: a function to call."""
    return str(parameter.annotation).startswith("Callable[")


def _accepted(parameters: Mapping[str, inspect.Parameter]) -> set[str]:
    """Return the names under which options can be given: a switch also as no_NAME."""
    switches = {f"no_{name}" for name, parameter in parameters.items() if parameter.annotation in (bool, "bool")}
    return {*parameters, *switches}


def _option(word: str) -> str:
    """Return the name of the option if a word is one, '' for a value."""
    return word[2:].partition("=")[0].replace("-", "_") if word.startswith("--") else ""


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _recorder(
    function: Callable[..., Any], more: Mapping[str, Further] | None = None
) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return a function with the options of `function` (and `more` for **options) that returns its arguments."""
    parameters = inspect.signature(function).parameters.values()
    shown = [_readable(p, function) for p in parameters if p.kind is not p.VAR_KEYWORD and not _only_python(p)]
    shown += [_explained(option) for option in (more or {}).values()]

    def bound(*arguments: Any, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return arguments, options

    bound.__doc__, bound.__name__ = function.__doc__, function.__name__
    bound.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    bound.__annotations__ = {p.name: p.annotation for p in shown}
    return bound


def _explained(option: Further) -> inspect.Parameter:
    """Return an option of a task or a kind of data with its help."""
    import tyro

    annotation = option.parameter.annotation
    told: dict[str, Any] = {"help_behavior_hint": ""} if option.parameter.default is None else {}
    shown = tyro.conf.arg(help=option.help or None, metavar=_metavar(annotation), **told)
    return option.parameter.replace(annotation=Annotated[annotation, shown])


def _readable(parameter: inspect.Parameter, function: Callable[..., Any]) -> inspect.Parameter:
    """Resolve the annotation, and show DATA instead of STR, INT instead of {None}|INT."""
    import tyro

    annotation = _annotation(parameter, function)
    metavar = parameter.name.upper() if parameter.kind is parameter.POSITIONAL_ONLY else _metavar(annotation)
    aliases = ("-o",) if parameter.name == "out" else (f"-{parameter.name}",) if len(parameter.name) == 1 else ()
    told: dict[str, Any] = {"help": _explanations(function).get(parameter.name)}
    if parameter.default is None:  # the text says what happens then
        told["help_behavior_hint"] = ""
    if metavar is not None and annotation is not bool and typing.get_origin(annotation) is not Literal:
        told |= {"metavar": metavar, "aliases": aliases}
    return parameter.replace(annotation=Annotated[annotation, tyro.conf.arg(**told)])


@functools.cache
def _explanations(function: Callable[..., Any]) -> dict[str, str]:
    """Return what `Args:` says of each option, in one line: tyro would keep the lines of the source."""
    found: dict[str, str] = {}
    block = re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", inspect.getdoc(function) or "", re.DOTALL | re.MULTILINE)
    for entry in re.split(r"\n    (?=\w+: )", "\n" + block[1]) if block else []:
        name, _, text = entry.partition(": ")
        found[name.strip()] = " ".join(text.split())
    return found


def _metavar(annotation: Any) -> str | None:
    """Return the word for a value, the first type of a union; None where tyro's own says more."""
    parts = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return parts[0].__name__.upper() if parts[0] in (int, float, str) else None


def _further_options(function: Callable[..., Any], words: list[str], explain: bool) -> dict[str, Further]:
    """Return the options of the task that the words name, and of its kind of data.

    To `explain` a command whose task is not named, they are those of every kind of data.
    """
    from selfsup.data.kinds import spec_options, spec_parameters
    from selfsup.tasks import TASKS, find_task
    from selfsup.tasks.options import options

    known = _options(function)
    default: str = known["task"].default if "task" in known else ""
    named, values, before = "", [], ""
    about_data = spec_parameters("any")
    for word in words:
        if before == "task" or _option(word) == "task":
            named = word.rpartition("=")[2] if _option(word) else word
        elif not word.startswith("-") and (
            before not in {**known, **about_data} or (before in known and known[before].annotation == "bool")
        ):
            values.append(word)  # the command's own, or the value of an option of the task
        before = _option(word) if "=" not in word else ""
    if "task" not in known and "task" in inspect.signature(function).parameters:
        named = next((word for word in values if word in TASKS or ":" in word), values[0] if values else "")
    name = named or default
    kinds: tuple[str, ...] = ("any",)
    own: dict[str, Further] = {}
    given = set(map(_option, words))
    if "preset" in known and ("preset" in given or ("views" in given and named not in TASKS and ":" not in named)):
        kinds = ("image",)  # `show` of views, without a task
    elif name and not (explain and not named):
        task = find_task(name)
        said, kinds = options(task), (task.kind, *task.also)
        heading = f"Options of {name}"
        own = {key: Further(p, said[key].sentence, heading) for key, p in task.hyperparameters().items()}
    of_data = spec_options(*kinds)
    data = {key: Further(_keyword(p), of_data[key].sentence, VIEWS) for key, p in spec_parameters(*kinds).items()}
    return data | own


class Further(typing.NamedTuple):
    """An option of a task or of a kind of data, and its help."""

    parameter: inspect.Parameter
    help: str
    group: str  # the heading of its part of the help


def _keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=parameter.KEYWORD_ONLY)


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Turn tyro's framed error messages into one line."""
    written, before = io.StringIO(), os.environ.get("COLUMNS")
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
    """Return the message in tyro's frame as one line."""
    lines = [line.strip(" │╭╮╰╯─|+") for line in framed.splitlines()]
    told = [line for line in lines[1:] if line.strip("-")] or ["these arguments cannot be read"]
    if told[0].startswith("Missing from"):
        return f"{told[1].split()[0]} is missing: {told[2].removesuffix('(required)').rstrip(' .')}"
    mistaken = re.match(r"Error parsing (\S+): .*\{None\}\|(\w+) could be instantiated from \[(.*)\]", told[0])
    mistaken = mistaken or re.match(r"Error parsing (\S+): .* (int|float)\b.*: (.*?)\.?$", told[0])
    if mistaken is None:
        return told[0].rstrip(".:")
    option, kind, given = mistaken.groups()
    return f"{option} takes {KINDS.get(kind.lower(), kind)}, not {given}"


def _fail(message: str, status: int) -> int:
    rank = launched().rank
    if rank == 0 or status < 128:  # all processes stop together on a signal, and one says so
        who = "selfsup:" if rank == 0 else f"selfsup, process {rank}:"
        print(who, " ".join(message.splitlines()), file=sys.stderr)
    return status


_ABOUT = """Learn representations from unlabelled data, and find out whether they help.

Every command takes --help; every result is JSON with --json. Start with `selfsup demo`.

Commands that open data also take --pages first|all|N (pages of a TIFF, frames of an animation; the first by default),
--window SECONDS (parts of long videos as samples of their own) and --follow-links (links to folders are left out by
default). Whatever is left out of the data is reported."""
