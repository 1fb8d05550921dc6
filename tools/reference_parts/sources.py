"""What the source says of a function: its signature, its docstring by labels, the names it uses.

Imports the standard library only. Reads files and runs nothing of them: so the text is the same on
every Python and every machine, and nothing has to be loaded.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent

# As they begin a line of a docstring, in the order of the design.
_LABEL = re.compile(r"(Since|Man|Memory|CQE res|CQE flags|Limit|Errors) {2,}(?=\S)")
_MAN = re.compile(r" +Man +")
_RELEASE = re.compile(r"\d+\.\d+")


class SourceError(Exception):
    """What a source lacks for the reference, in one line for whoever edits it."""


class Docstring(NamedTuple):
    """A docstring in its parts."""

    paragraphs: tuple[tuple[str, ...], ...]
    """The lines of each paragraph before the labels; the first paragraph is the summary."""
    labels: Mapping[str, str]
    """By label: Since, Man, Memory, CQE res, CQE flags, Limit, Errors."""
    example: tuple[str, ...] = ()
    """A program: the indented lines under `Example`."""

    @property
    def releases(self) -> list[str]:
        """The releases that Since names, the one that has it first."""
        return _RELEASE.findall(self.labels.get("Since", ""))


class Class(NamedTuple):
    """A class as its source has it."""

    name: str
    bases: tuple[str, ...]
    doc: Docstring
    attributes: tuple[tuple[str, str], ...]
    """Annotated ones, and what the string below each says."""


class Function(NamedTuple):
    """A function or method as its source has it."""

    name: str
    owner: str  # the class of a method, else the name of the module
    path: Path
    parameters: tuple[tuple[str, str], ...]  # name and default ("" without); `*` stands for itself
    returns: str
    doc: Docstring
    uses: tuple[str, ...]
    """The dotted names in its body, in their order."""
    is_property: bool

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        if not self.doc.paragraphs:
            raise SourceError(f"{self.path.relative_to(ROOT)}: {self.name} has no docstring")
        return self.doc.paragraphs[0][0]

    def label(self, name: str) -> str:
        """The text of a line that the docstring must have."""
        if name not in self.doc.labels:
            raise SourceError(f"{self.path.relative_to(ROOT)}: the docstring of {self.name} has no line {name!r}")
        return self.doc.labels[name]

    def call(self, receiver: str, without: frozenset[str] = frozenset()) -> str:
        """How it is called: less `self`, and less the keyword-only parameters in `without`."""
        shown: list[str] = []
        keyword_only = False
        for name, default in self.parameters:
            keyword_only = keyword_only or name == "*"
            if name != "self" and not (keyword_only and name in without):
                shown.append(f"{name}={default}" if default else name)
        if shown and shown[-1] == "*":
            shown.pop()
        return f"{receiver}.{self.name}({', '.join(shown)})"


def parse(docstring: str) -> Docstring:
    """The parts of a docstring whose indentation is clean. What follows a label may go on in indented lines."""
    paragraphs: list[list[str]] = [[]]
    labels: dict[str, str] = {}
    last = ""
    lines, example = _without_example(docstring.splitlines())
    for line in lines:
        found = _LABEL.match(line)
        if found:
            last = found[1]
            labels[last] = line[found.end() :].strip()
        elif last and line.strip():
            labels[last] += " " + line.strip()
        elif line.strip():
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    since, *man = _MAN.split(labels.get("Since", ""), maxsplit=1)
    if man:
        labels["Since"], labels["Man"] = since, man[0]
    return Docstring(tuple(tuple(part) for part in paragraphs if part), labels, tuple(example))


def _without_example(lines: list[str]) -> tuple[list[str], list[str]]:
    """The lines of a docstring but its example, and this without its indentation."""
    if "Example" not in lines:
        return lines, []
    start = lines.index("Example") + 1
    end = next((i for i in range(start, len(lines)) if lines[i] and not lines[i].startswith(" ")), len(lines))
    return lines[: start - 1] + lines[end:], dedent("\n".join(lines[start:end])).strip().splitlines()


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _names(body: list[ast.stmt]) -> tuple[str, ...]:
    found = [
        (node.lineno, node.col_offset, -len(name), name)
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, (ast.Name, ast.Attribute)) and (name := _dotted(node))
    ]
    return tuple(name for *_, name in sorted(found))


def _default(node: ast.expr | None, constants: Mapping[str, ast.expr], source: str) -> str:
    """A default in words a caller can use: a private constant by what it stands for, a number as it is written."""
    if isinstance(node, ast.Name) and node.id.startswith("_"):
        node = constants.get(node.id, node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "int":
        node = node.args[0]
    if isinstance(node, ast.Constant):
        return ast.get_source_segment(source, node) or ""
    return "" if node is None else ast.unparse(node).removeprefix("abi.")


def _parameters(args: ast.arguments, constants: Mapping[str, ast.expr], source: str) -> tuple[tuple[str, str], ...]:
    positional = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(positional) - len(args.defaults)), *args.defaults]
    shown = [(arg.arg, _default(default, constants, source)) for arg, default in zip(positional, defaults)]
    if args.vararg or args.kwonlyargs:
        shown.append((f"*{args.vararg.arg}" if args.vararg else "*", ""))
    keywords = zip(args.kwonlyargs, args.kw_defaults)
    shown += [(arg.arg, _default(default, constants, source)) for arg, default in keywords]
    return (*shown, (f"**{args.kwarg.arg}", "")) if args.kwarg else tuple(shown)


def _functions_of(path: Path) -> Iterator[Function]:
    source = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise SourceError(f"{path.relative_to(ROOT)}, line {error.lineno}: {error.msg}") from None
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    owners = [(path.stem, tree.body)] + [(node.name, node.body) for node in tree.body if isinstance(node, ast.ClassDef)]
    for owner, body in owners:
        for node in body:
            if isinstance(node, ast.FunctionDef):
                yield Function(
                    node.name, owner, path, _parameters(node.args, constants, source),
                    ast.unparse(node.returns) if node.returns else "",
                    parse(ast.get_docstring(node) or ""), _names(node.body),
                    any(isinstance(each, ast.Name) and each.id == "property" for each in node.decorator_list),
                )  # fmt: skip


def functions(folder: str) -> list[Function]:
    """Every function and method in the modules of a folder, or in one module, by module and place."""
    path = ROOT / folder
    paths = sorted(path.glob("*.py")) if path.is_dir() else [path]
    return [function for path in paths for function in _functions_of(path)]


def classes(module: str) -> dict[str, Class]:
    """The classes of a module by name."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    return {
        node.name: Class(
            node.name, tuple(ast.unparse(base) for base in node.bases), parse(ast.get_docstring(node) or ""),
            tuple(_attributes(node.body)),
        )
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }  # fmt: skip


def _attributes(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node, below in zip(body, [*body[1:], None]):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            is_told = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            yield node.target.id, str(below.value.value) if is_told else ""  # type: ignore[union-attr]


def module_doc(module: str) -> Docstring:
    """The docstring of a module."""
    return parse(ast.get_docstring(ast.parse((ROOT / module).read_text(encoding="utf-8"))) or "")


def section(module: str, heading: str) -> list[str]:
    """The indented lines under a heading in a module's docstring, without their indentation."""
    lines = (ast.get_docstring(ast.parse((ROOT / module).read_text(encoding="utf-8"))) or "").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(heading)) + 1
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return dedent("\n".join(lines[start:end])).splitlines()


def commented_constants(module: str) -> Iterator[tuple[str, str]]:
    """Name and comment of each plain constant of a module: the comment above it, or behind it."""
    above: list[str] = []
    ended = False  # the comment: another line is another comment
    for line in (ROOT / module).read_text(encoding="utf-8").splitlines():
        constant = re.match(r"([A-Z][A-Z0-9_]+): Final = [^#]+(?:# (.*))?$", line)
        if constant:
            yield constant[1], constant[2] or " ".join(above)
            ended = True
        elif line.startswith("# ") and not line.startswith("# --"):
            above = [*([] if ended else above), line[2:]]
            ended = False
        else:
            above = []
