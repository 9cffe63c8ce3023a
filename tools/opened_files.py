"""Which files one opens to understand a method end to end, and how many lines of code they have.

They are the method's file, the base class, the loop, and every module of losses, heads and views that the method's own
code takes something from. Left out: what only draws an image of the method (`panels`), the layers below (errors, base,
spec, source), which hold no ideas of the method, and the engine that makes the views that are described.
Lines of code are lines that are neither empty, comments nor docstrings.

    python tools/opened_files.py simclr mae
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

HOME = Path(__file__).parent.parent / "src" / "selfsup"
BELOW = ("errors", "base", "spec", "source")
ENGINE = ("ImageViews", "TextViews")
ALWAYS = ("task.py", "train/fit.py")
DESCRIBED = {"preset_views": "views/image/crop.py"}  # it only chooses the kind of data: of images, the views are there


def opened(task: str) -> list[Path]:
    """Return the files, the method's own first."""
    (own,) = (path for path in (HOME / "tasks").rglob(f"{task}.py"))
    tree = ast.parse(own.read_text())
    drawn = {
        id(node)
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef) and f.name == "panels"
        for node in ast.walk(f)
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in drawn}
    files = [own]
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("selfsup."):
            parts = node.module.split(".")[1:]
            taken = [alias.name for alias in node.names if (alias.asname or alias.name) in used]
            if parts[0] not in BELOW:
                files += [defined_in(HOME.joinpath(*parts), name) for name in taken if name not in ENGINE]
    return list(dict.fromkeys([*files, *(HOME / name for name in ALWAYS)]))


def defined_in(place: Path, name: str) -> Path:
    """Return the file that defines what a module or package offers under a name."""
    if name in DESCRIBED:
        return HOME / DESCRIBED[name]
    if place.with_suffix(".py").exists():
        return place.with_suffix(".py")
    if (place / f"{name}.py").exists():
        return place / f"{name}.py"
    for node in ast.parse((place / "__init__.py").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and name in {alias.name for alias in node.names}:
            return defined_in(HOME.joinpath(*node.module.split(".")[1:]), name)
    return place / "__init__.py"


def lines_of_code(path: Path) -> int:
    """Return how many lines hold code."""
    source = path.read_text()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            docs |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - docs)


def main() -> None:
    """Print the lists."""
    for task in sys.argv[1:] or ("simclr", "mae"):
        counts = {path: lines_of_code(path) for path in opened(task)}
        print(f"{task}: {len(counts)} files, {sum(counts.values())} lines of code")
        for path, count in counts.items():
            print(f"  {count:4} {path.relative_to(HOME)}")


if __name__ == "__main__":
    main()
