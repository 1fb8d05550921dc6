"""A report as a document: its tables, its text as JSON, and one that was saved, read again.

May import `hints` and its siblings `errors` and `schema`.
"""

from __future__ import annotations

import json

from ..hints import TYPE_CHECKING, Any
from .errors import UsageError
from .schema import problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    Document = dict[str, Any]
    Row = dict[str, Any]

MAX_NBYTES = 1 << 20
"""A report has about 40 KiB."""
MAX_DIGITS = 20
"""Of an integer. Longer ones take long to convert, and none is in a report."""


class Table:
    """A section of rows: its key in the document, and what it and its rows are called."""

    __slots__ = ("key", "prefix", "title", "what")

    def __init__(self, key: str, title: str, what: str, prefix: str) -> None:
        self.key, self.title, self.what, self.prefix = key, title, what, prefix


BEHAVIOUR = Table("behaviour", "Behaviour", "behaviour", "behaviour")
TABLES = (
    Table("features", "Features", "feature", "feature"),
    Table("setup_flags", "Set-up flags", "set-up flag", "setup"),
    Table("opcodes", "Operations", "operation", "op"),
    Table("register_ops", "Register operations", "register operation", "register"),
    BEHAVIOUR,
)


def rows(document: Document) -> Iterator[tuple[Table, Row]]:
    for table in TABLES:
        for row in document[table.key]:
            yield table, row


def to_json(document: Document) -> str:
    """The document with a row of a table on a line."""
    parts = []
    for key, value in document.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in value) + "\n  ]"
        elif isinstance(value, dict):
            text = "{\n" + ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n  }"
        parts.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"


def read(path: str) -> Document:
    """A document that was saved."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_NBYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the path
        raise UsageError(f"{path}: {error}") from None
    if len(data) > MAX_NBYTES:
        raise UsageError(f"{path}: more than {MAX_NBYTES >> 20} MiB are no report")
    try:
        document = json.loads(data, parse_int=_integer, parse_constant=_refuse)
    except RecursionError:
        raise UsageError(f"{path}: not a report, but something nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}") from None
    rule = schema()
    ours = rule["properties"]["schema"]["const"]
    name = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(name, str) or not name.startswith(ours.rpartition("/")[0]):
        raise UsageError(f"{path}: not a report; make one with --json")
    if name != ours:
        raise UsageError(f"{path}: a report of the schema {name[:40]}, and this program reads {ours}")
    wrong = problem(document, rule)
    if wrong:
        raise UsageError(f"{path}: not a whole report: {wrong}")
    return document  # type: ignore[no-any-return]


def schema() -> dict[str, Any]:
    """The JSON Schema of a document."""
    import pkgutil

    return json.loads(pkgutil.get_data("rawuring.probe", "schema.json") or b"")  # type: ignore[no-any-return]


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
