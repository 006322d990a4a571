"""YAML as a catalog uses it: plain data, the line of every field, and each fault in words.

It knows YAML's grammar and pydantic's error types, and not what a catalog holds. It accepts less than YAML allows: no
aliases, explicit tags, merges or second documents, so that every value has one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeAlias, get_args

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

Place: TypeAlias = tuple[int | str, ...]

ACROSS = "across_fields"
"""The type of a pydantic custom error whose context holds `faults`: a tuple of `(place, message)`."""

_DEEPEST = 16
"""Deepest nesting that is read."""

_LONGEST = 60
"""Characters of a value that a message shows."""

_MAP, _SEQ = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"

_WORDS = {
    "missing": "is required",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "enum": "must be {expected}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters",
    "model_type": "must be a mapping of fields",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
}


class CatalogError(Exception):
    """A catalog that cannot be served. Its arguments are the faults, one line each, as `FILE:LINE: what`."""

    def __str__(self) -> str:
        """All faults, one per line."""
        return "\n".join(str(fault) for fault in self.args)


@dataclass(frozen=True)
class Document:
    """A YAML file as plain data, with the line (from 1) on which the field at each place begins."""

    file: str
    data: object
    lines: Mapping[Place, int] = field(default_factory=dict)

    def fault(self, place: Place, message: str) -> str:
        """Formats a fault as one line, at the field's own line or, if the field is absent, at its parent's."""
        return f"{self.file}:{self.line(place)}: {_path(place)}{message}"

    def line(self, place: Place) -> int:
        """The line of the field at `place`, or of the nearest one around it."""
        return next((self.lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in self.lines), 1)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses aliases and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs leave it untyped
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases are not part of a catalog: write the value out", problem_mark=mark
            )
        if self.depth >= _DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested more than {_DEEPEST} deep", problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


@dataclass
class _Reader:
    """One pass over the nodes: collects lines and faults, returns plain data."""

    file: str
    loader: _Loader
    lines: dict[Place, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def read(self, node: yaml.Node, place: Place) -> object:
        self.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return dict(self._items(node, place))
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ:
            return [self.read(item, (*place, at)) for at, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag == self._natural_tag(node):
            try:
                return self.loader.construct_object(node)
            except (ValueError, OverflowError) as error:
                self._refuse(node, place, f"is not a value that YAML can hold: {error}")
            except yaml.YAMLError:  # a lone `=` or `<<`, which YAML 1.1 treats specially
                self._refuse(node, place, f"must be quoted, got {node.value}")
        else:
            self._refuse(node, place, "must not bear a YAML tag")
        return None

    def _items(self, node: yaml.MappingNode, place: Place) -> Iterator[tuple[str, object]]:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                self._refuse(key_node, place, f"a field's name must be text, got {shown(key)}")
            elif key in seen:
                self._refuse(key_node, (*place, key), "is written twice")
            else:
                seen.add(key)
                self.lines[(*place, key)] = key_node.start_mark.line + 1
                yield key, self.read(value_node, (*place, key))

    def _natural_tag(self, node: yaml.ScalarNode) -> str:
        plain = node.style is None
        tag = self.loader.resolve(yaml.ScalarNode, node.value, (plain, not plain))  # type: ignore[no-untyped-call]
        return str(tag)

    def _refuse(self, node: yaml.Node, place: Place, message: str) -> None:
        self.faults.append(f"{self.file}:{node.start_mark.line + 1}: {_path(place)}{message}")


def read_document(content: bytes, file: str) -> Document:
    """Reads one YAML document in UTF-8. Raises CatalogError with every fault of its syntax."""
    try:
        text = content.decode()
        loader = _Loader(text)
        node = loader.get_single_node()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CatalogError(f"{file}:{line}: the file must be UTF-8 text") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise CatalogError(f"{file}:{line}: not YAML: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise CatalogError(f"{file}:{mark.line + 1 if mark else 1}: not YAML: {problem}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML lets chr() and int() raise
        raise CatalogError(f"{file}:1: not YAML: {error}") from None
    if node is None:
        raise CatalogError(f"{file}:1: the file is empty")
    reader = _Reader(file, loader)
    data = reader.read(node, ())
    if reader.faults:
        raise CatalogError(*reader.faults)
    return Document(file, data, reader.lines)


def in_words(document: Document, model: type[BaseModel], errors: list[ErrorDetails]) -> list[str]:
    """Turns pydantic's errors about `model` into faults with file, line and field, in order of line."""
    faults: list[tuple[Place, str]] = []
    for error in errors:
        if error["type"] == ACROSS:
            faults += error["ctx"]["faults"]
        elif error["type"] != "too_short" or not _holds_another(error, errors):
            faults.append((error["loc"], _message(error, model)))
    faults.sort(key=lambda fault: document.line(fault[0]))
    return [document.fault(place, message) for place, message in faults]


def shown(value: object) -> str:
    """A value as a message shows it: short, on one line, printable."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _message(error: ErrorDetails, model: type[BaseModel]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known = _fields_at(model, error["loc"][:-1])
        close = get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"unknown field; did you mean {close[0]}?" if close else f"unknown field; known are {', '.join(known)}"
    if kind == "missing":
        return _WORDS[kind]
    words = str(context["error"]) if kind == "value_error" else _WORDS.get(kind, error["msg"]).format_map(context)
    return f"{words}, got {shown(error['input'])}"


def _holds_another(error: ErrorDetails, errors: list[ErrorDetails]) -> bool:
    """True if another fault lies inside this one: pydantic calls a list too short if none of its items is valid."""
    place = error["loc"]
    return any(other["loc"][: len(place)] == place and other is not error for other in errors)


def _fields_at(model: type[BaseModel], place: Place) -> list[str]:
    """The names of the fields of the model at `place` inside `model`."""
    for part in place:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            inner = next((kind for kind in (annotation, *get_args(annotation)) if _is_model(kind)), None)
            model = inner or model
    return list(model.model_fields)


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _path(place: Place) -> str:
    """A place in words, such as `checkpoints[1].quality.value: `; empty for the document itself."""
    text = ""
    for part in place:
        if part == "[key]":  # pydantic's mark of a fault in a field's name, which precedes it
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part if part.isidentifier() else shown(part)}"
    return f"{text.removeprefix('.')}: " if text else ""
