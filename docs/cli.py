"""Write docs/reference/cli.md: every command with its options, from the signatures of the functions behind them.

python docs/cli.py
"""

from __future__ import annotations

import inspect
from pathlib import Path

from selfsup.base.options import read_args
from selfsup.cli import COMMANDS, _function, _only_python
from selfsup.manual import EXAMPLES

PAGE = Path(__file__).parent / "reference" / "cli.md"
ABOUT = """<!-- written by docs/cli.py: change a command's docstring, not this file -->

# Command line

`selfsup COMMAND --help` shows the same. Every command prints JSON with `--json`. Commands that open data also take
`--pages first|all|N` (pages of a TIFF, frames of an animation), `--window SECONDS` (parts of long videos as samples of
their own) and `--follow-links`.

## Shell completion

Write the completions once, and let each new shell read them. Commands and their own options are completed, those of
tasks are not.

```sh
selfsup --tyro-print-completion bash > ~/.selfsup-completion   # then in ~/.bashrc: source ~/.selfsup-completion
selfsup --tyro-print-completion zsh > ~/.zfunc/_selfsup        # a folder of fpath; then: compinit
```
"""


def section(command: str) -> list[str]:
    """Return the part of the page about one command."""
    function = _function(command)
    text = inspect.getdoc(function) or ""
    said = read_args(text)
    about = text.partition("\nArgs:\n")[0].partition("\nRaises:\n")[0].strip()
    words, rows = [command], []
    for parameter in inspect.signature(function).parameters.values():
        if _only_python(parameter):
            continue
        name, told = parameter.name, said.get(parameter.name, "").replace("|", r"\|")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            words.append(name.upper() if parameter.default is parameter.empty else f"[{name.upper()}]")
            rows.append(f"| {name.upper()} | | {told} |")
        elif parameter.kind is parameter.VAR_KEYWORD:
            rows.append(f"| others | | {told} |")
        else:
            flag = f"--{name.replace('_', '-')}"
            flag = f"--no-{flag[2:]}" if parameter.default is True else flag
            plain = parameter.default is None or isinstance(parameter.default, bool) or parameter.default == ""
            shown = "" if plain else f"`{parameter.default}`"
            rows.append(f"| `{flag}` | {shown} | {told} |")
    table = ["| option | default | what it is |", "| --- | --- | --- |", *rows, ""] if rows else []
    usage = ["```text", f"selfsup {' '.join(words)} [OPTIONS]", "```", ""]
    examples = ["For example", "", "```", *(f"selfsup {example}" for example in EXAMPLES[command]), "```", ""]
    return [f"## {command}", "", about, "", *usage, *table, *examples]


def page() -> str:
    """Return the text of the page."""
    return "\n".join([ABOUT, *(line for command in COMMANDS for line in section(command))]).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
