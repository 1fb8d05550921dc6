"""The report of a program that could not find anything out: valid, and all but empty.

Imports the standard library only. tools/probe.py loads this file by its path where rawuring itself cannot be
imported, on any Python from 3.6 on: keep to that grammar.
"""

import json
import os
import platform
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def report(sentence: str) -> "dict[str, Any]":
    """What schema.json requires, with null and [] wherever it allows them, and `sentence` for a verdict."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "schema.json"), encoding="utf-8") as file:
        document = _least(json.load(file))
    document["tool"].update(name="rawuring", python=platform.python_implementation() + " " + platform.python_version())
    for name in "release", "version", "machine":
        document["kernel"][name] = getattr(platform.uname(), name) or None
    status, exit_code = ("undecided", 5) if sys.platform.startswith("linux") else ("absent", 4)
    document["verdict"].update(status=status, exit_code=exit_code, summary=sentence)
    document["access"]["ring"] = sentence
    return document  # type: ignore[no-any-return]


def _least(rule: "dict[str, Any]") -> "Any":
    """The least value that a rule of the schema allows."""
    if "const" in rule:
        return rule["const"]
    types = rule.get("type", [])
    if "null" in types:
        return None
    if types == "object":
        return {name: _least(rule["properties"][name]) for name in rule.get("required", ())}
    return [] if types == "array" else ""
