"""Check a value against a JSON Schema, with as many of its keywords as schema.json uses.

May import `hints`. So that a saved report is held against the one description of its shape, without a dependency.
"""

from __future__ import annotations

import re

from ..hints import Any

TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
RULES = frozenset(
    ("$ref", "additionalProperties", "const", "enum", "items", "minimum", "pattern", "properties", "propertyNames", "required", "type")
)
NOTES = frozenset(("$defs", "$id", "$schema", "description", "title"))


def problem(document: object, schema: dict[str, Any]) -> str | None:
    """What is wrong with a document, in a few words; None if nothing is."""
    return next(_problems(document, schema, schema.get("$defs", {}), ""), None)


def _problems(value: Any, rule: Any, definitions: Any, where: str) -> Any:
    if "$ref" in rule:
        rule = definitions[rule["$ref"].rpartition("/")[2]]
    types = rule.get("type", [])
    # Exactly: True is an int to isinstance.
    if types and type(value) not in [TYPES[name] for name in ([types] if isinstance(types, str) else types)]:
        yield f"{where or 'it'} is {_short(value)}, and should be of type {types if isinstance(types, str) else ' or '.join(types)}"
        return
    allowed = rule.get("enum", [rule["const"]] if "const" in rule else None)
    if allowed is not None and not any(type(value) is type(one) and value == one for one in allowed):
        yield f"{where} is {_short(value)}, and should be {' or '.join(map(str, allowed))}"
    if isinstance(value, int) and value < rule.get("minimum", value):
        yield f"{where} is {_short(value)}, and should be at least {rule['minimum']}"
    if isinstance(value, str) and not re.search(rule.get("pattern", ""), value):
        yield f"{where} is {_short(value)}, and should match {rule['pattern']}"
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(item, rule.get("items", {}), definitions, f"{where}[{index}]")
    if isinstance(value, dict):
        yield from _problems_of_object(value, rule, definitions, where)


def _problems_of_object(value: dict[str, Any], rule: Any, definitions: Any, where: str) -> Any:
    for name in rule.get("required", ()):
        if name not in value:
            yield f"{where or 'it'} lacks {name}"
    known, other = rule.get("properties", {}), rule.get("additionalProperties", {})
    for name, item in value.items():
        path = f"{where}.{name[:40]}" if where else name[:40]
        yield from _problems(name, rule.get("propertyNames", {}), definitions, f"a name in {where or 'it'}")
        if name in known:
            yield from _problems(item, known[name], definitions, path)
        elif other is False:
            yield f"{path} is not known"
        else:
            yield from _problems(item, other, definitions, path)


def _short(value: object) -> str:
    """A value for a message: what it is, or what kind of thing."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, str):
        return repr(value[:40])
    return {None: "null", True: "true", False: "false"}.get(value, str(value))  # type: ignore[call-overload,no-any-return]
