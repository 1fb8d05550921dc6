"""A report as the JSON document of the schema `rawuring.probe/1`.

May import its sibling `report`. Never decides anything: a document holds what the report holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Final

from .report import Report

SCHEMA: Final = "rawuring.probe/1"


def document(report: Report) -> dict[str, object]:
    """What json.dumps takes: dicts, lists, str, int, bool and None."""
    plain = _plain(report)
    assert isinstance(plain, dict)
    return {"schema": SCHEMA, **plain}


def _plain(value: object) -> object:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value
