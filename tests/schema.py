"""Checks what commands print with ``--json`` against the schema that is shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

from jsonschema import Draft202012Validator, FormatChecker

FILE = Path(__file__).resolve().parents[1] / "packaging" / "loopnet.schema.json"


def load() -> Dict[str, Any]:
    """The shipped schema."""
    schema: Dict[str, Any] = json.loads(FILE.read_text())
    return schema


def check(command: str, printed: Any) -> None:
    """Fail unless ``printed`` is as the schema says, and has no key that it doesn't know."""
    schema = load()
    closed = {**_closed(schema), "$ref": f"#/$defs/{command}"}
    Draft202012Validator.check_schema(closed)
    errors = Draft202012Validator(closed, format_checker=FormatChecker(["ipv4", "ipv6"])).iter_errors(printed)
    found = [f"{'/'.join(map(str, error.path))}: {error.message}" for error in errors]
    assert not found, found


def _closed(schema: Any) -> Any:
    """To users new keys may come; to this version's tests each has to be described."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if schema.get("type") == "object":
        closed["additionalProperties"] = False
    return closed
