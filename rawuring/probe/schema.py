"""Check a value against a JSON Schema, with as many of its keywords as schema.json uses.

May import `hints`. A saved report is so held against the one description of its shape, without a dependency.
"""

from __future__ import annotations

import json
import re

from ..hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    Rule = dict[str, Any]

TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}


def problem(value: object, schema: Rule) -> str | None:
    """What is wrong with a value, in a few words; None if nothing is."""
    return next(_problems(value, schema, schema.get("$defs", {}), ""), None)


def _problems(value: Any, rule: Rule, definitions: Rule, where: str) -> Iterator[str]:
    if "$ref" in rule:
        rule = definitions[rule["$ref"].rpartition("/")[2]]
    begin = f"{where or 'it'} is {_short(value)}, and should"
    types = [rule["type"]] if isinstance(rule.get("type"), str) else rule.get("type", [])
    if types and type(value) not in [TYPES[name] for name in types]:  # exactly: True is an int to isinstance
        yield f"{begin} be of type {' or '.join(types)}"
        return
    allowed = rule.get("enum", [rule["const"]] if "const" in rule else None)
    if allowed is not None and not any(type(value) is type(one) and value == one for one in allowed):
        yield f"{begin} be {' or '.join(map(str, allowed))}"
    if isinstance(value, int) and value < rule.get("minimum", value):
        yield f"{begin} be at least {rule['minimum']}"
    if isinstance(value, str) and not re.search(rule.get("pattern", ""), value):
        yield f"{begin} match {rule['pattern']}"
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(item, rule.get("items", {}), definitions, f"{where}[{index}]")
    if isinstance(value, dict):
        yield from _problems_of_object(value, rule, definitions, where)


def _problems_of_object(value: dict[str, Any], rule: Rule, definitions: Rule, where: str) -> Iterator[str]:
    for name in rule.get("required", ()):
        if name not in value:
            yield f"{where or 'it'} lacks {name}"
    known, other = rule.get("properties", {}), rule.get("additionalProperties", {})
    for name, item in value.items():
        path = f"{where}.{name[:40]}" if where else name[:40]
        yield from _problems(name, rule.get("propertyNames", {}), definitions, f"a name in {where or 'it'}")
        if name not in known and other is False:
            yield f"{path} is not known"
        else:
            yield from _problems(item, known.get(name, other), definitions, path)


def _short(value: object) -> str:
    """A value for a message: what it is, or what kind of thing."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    return repr(value[:40]) if isinstance(value, str) else json.dumps(value)
