"""Reading a sweep's YAML, and saying in one line what is wrong with it: the place, the value, the valid choices."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

MAX_DEPTH = 50
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


class _UniqueKeys(yaml.constructor.SafeConstructor):
    """A key that is there twice is an error (PyYAML silently keeps the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in keys:
                    line = key_node.start_mark.line + 1
                    raise ValueError(f"line {line}: the key {key_node.value!r} is there twice; keep one of them")
                keys.add(key_node.value)
        return super().construct_mapping(node, deep)


class _Loader(_UniqueKeys, yaml.SafeLoader):
    """Safe YAML, read in Python: slow, with errors that say most."""


if yaml.__with_libyaml__:

    class _FastLoader(_UniqueKeys, yaml.CSafeLoader):
        """Safe YAML, read in C: 100,000 listed trials in seconds, where Python needs a minute."""

else:
    _FastLoader = _Loader  # type: ignore[assignment,misc]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping. ValueError (without the file's name) when it cannot be read or is something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(f"the sweep cannot be read: {reason}") from None
    try:
        content = _parsed(text)
        _check_depth(content)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except ValueError as error:  # a key that is there twice, or a value such as 2020-99-99 that is no date after all
        known = str(error).startswith("line ") or str(error) == TOO_DEEP
        raise ValueError(str(error) if known else f"not valid YAML: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ValueError(f"{f'line {mark.line + 1}: ' if mark else ''}not valid YAML: {problem}") from None
    if not isinstance(content, dict):
        kind = {"list": "a list", "NoneType": "empty"}.get(type(content).__name__, f"{content!r}")
        raise ValueError(f"a sweep is a mapping of keys (name, backbones, tasks, ...), this file is {kind}")
    return content


def _check_depth(content: Any) -> None:
    """Nothing in a sweep is nested deeply, and what is would be too much for those that show it in an error."""
    inner = [content]
    for _ in range(MAX_DEPTH):
        inner = [
            value
            for outer in inner
            if isinstance(outer, dict | list)
            for value in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if inner:
        raise ValueError(TOO_DEEP)


def _parsed(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_FastLoader)
    except (ValueError, yaml.YAMLError):  # the slow one says more
        return yaml.load(text, Loader=_Loader)


def set_value(
    content: dict[str, Any], override: str, option: str = "--set", example: str = "recipe.learning_rate=2e-4"
) -> None:
    """Lay an override such as ``recipe.learning_rate=2e-4`` over a mapping, in place; the value is read as YAML."""
    place, equals, text = override.partition("=")
    keys = place.strip().split(".")
    if not equals or not all(keys):
        raise ValueError(f"{option} {override!r}: expected KEY=VALUE, for instance {example}")
    target: Any = content
    for depth, key in enumerate(keys[:-1], start=1):
        if target.get(key) is None:
            target[key] = {}
        target = target[key]
        if not isinstance(target, dict):
            whole = ".".join(keys[:depth])
            what = f"a list; give all of it: {whole}=[...]" if isinstance(target, list) else f"{target!r}, no mapping"
            raise ValueError(f"{option} {override!r}: {whole} is {what}")
    try:
        target[keys[-1]] = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise ValueError(f"{option} {override!r}: {text!r} is not valid YAML") from None


def unknown(kind: str, name: object, choices: Iterable[str]) -> str:
    """``unknown task 'lfe'; did you mean 'life'? valid: ...``"""
    choices = list(choices)
    close = difflib.get_close_matches(str(name), choices, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {kind} {name!r}; {meant}valid: {', '.join(choices)}"


def one_line(error: ValidationError, model: type[BaseModel], content: Any) -> str:
    """The first error of a validation as one line: ``recipe.learning_rat: unknown key ...``."""
    first = error.errors()[0]
    place, kind, value = _place(first["loc"], content), first["type"], first["input"]
    if kind == "extra_forbidden":
        owner = _model_at(model, first["loc"][:-1])
        return f"{place}: {unknown('key', first['loc'][-1], owner.model_fields if owner else ())}"
    if kind == "missing":
        owner = _model_at(model, first["loc"][:-1])
        return f"{place}: missing; keys: {', '.join(owner.model_fields if owner else ())}"
    message = " ".join(first["msg"].removeprefix("Value error, ").split())
    message = message.replace("a valid tuple", "a list").replace("Tuple should", "List should")
    message = message.replace("a valid dictionary", "a mapping")
    if kind == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place} = {value!r}: {message[:1].lower()}{message[1:]}"


def _place(loc: Sequence[int | str], content: Any) -> str:
    """``('tasks', 0, 'recipe', 'max_steps')`` -> ``tasks[0].life.recipe.max_steps``, as the user wrote it."""
    text = ""
    for place, part in enumerate(loc):
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            content = None
        # An entry such as {life: {recipe: ...}} is checked without its name's level: put the name back.
        named = part == "task" if loc[0] == "trials" else place == 1 and loc[0] in ("backbones", "tasks")
        if named and isinstance(content, dict) and len(content) == 1:
            name, content = next(iter(content.items()))
            text += f".{name}"
    return text


def _model_at(model: type[BaseModel], loc: Sequence[int | str]) -> type[BaseModel] | None:
    """The model whose keys stand at ``loc``."""
    current: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, str) and current is not None:
            field = current.model_fields.get(part)
            current = _inner_model(field.annotation) if field else None
    return current


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for found in map(_inner_model, typing.get_args(annotation)) if found), None)
