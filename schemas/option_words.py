"""What is wrong with a setting, in one line: the field, the value's problem, the fix. Never the value: it may be a
secret."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

_FIXES = {
    "missing": "missing: set it",
    "int_parsing": "must be a whole number, like 587",
    "int_type": "must be a whole number, like 587",
    "int_from_float": "must be a whole number, like 587",
    "float_parsing": "must be a number, like 2.5",
    "float_type": "must be a number, like 2.5",
    "date_from_datetime_parsing": "must be a date, like 2027-05-31",
    "date_parsing": "must be a date, like 2027-05-31",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text in quotes",
    "tuple_type": 'must be a list, like ["a", "b"]',
    "list_type": 'must be a list, like ["a", "b"]',
    "dict_type": "must be a table of names and values",
    "model_type": "must be a table of names and values",
}


def first_problem(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first problem as `field: what is wrong and what to do`; `model` knows the names that exist."""
    problems = error.errors(include_input=False, include_url=False)
    # A misspelt name is also a missing one: the spelling is what to mend.
    first = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    path = [str(part) for part in first["loc"]]
    reason = _reason(first["type"], first["msg"], first.get("ctx", {}), path, model)
    field = ".".join(path)
    return f"{field}: {reason}" if field else reason


def _reason(kind: str, message: str, context: Mapping[str, Any], path: list[str], model: Any) -> str:
    if kind == "extra_forbidden":
        return f"there is no such setting; {_hint(path[-1], _names_beside(path, model))}"
    if kind == "literal_error":
        return f"must be one of {context.get('expected', '')}"
    if kind == "string_pattern_mismatch":
        return f"has the wrong form: it must match {context.get('pattern', '')}"
    if kind in _FIXES:
        return _FIXES[kind]
    message = message.removeprefix("Value error, ")
    return message.replace("Input should be", "must be", 1).replace("String should", "must", 1)


def _hint(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known are {', '.join(names)}" if names else "remove it"


def _names_beside(path: list[str], model: Any) -> list[str]:
    """The names that could stand where the path ends."""
    current: Any = model
    for part in path[:-1]:
        current = _model_in(_inner(current, part))
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _inner(current: Any, part: str) -> Any:
    if isinstance(current, type) and issubclass(current, BaseModel):
        found = current.model_fields.get(part)
        return found.annotation if found else None
    arguments = get_args(current)
    return arguments[-1] if get_origin(current) is dict and arguments else None


def _model_in(annotation: Any) -> Any:
    """The model or mapping among `X | None` and `Annotated[X, ...]`."""
    if get_origin(annotation) is Annotated:
        return _model_in(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return next((_model_in(one) for one in get_args(annotation) if one is not type(None)), None)
    return annotation
