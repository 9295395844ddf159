r"""JSON Schema to GBNF, llama.cpp's grammar notation.

Written here because the translator in llama-cpp-python passes over what it does not know (``minimum``,
``required`` without ``properties``), lets raw line breaks into strings, and mixes up definitions of one name.

Invariant: a text that follows the grammar is JSON and valid under the schema, though not every valid text
follows it: members come in the order of ``properties``, unnamed ones only where none are named, white space is
short, and strings hold no ``\u`` escapes. A keyword that cannot be kept is an error, never passed over. One is
kept in part: ``oneOf`` is read as ``anyOf``, so a text may be valid under several of its schemas.
Leaves out: ``pattern``, ``format``, bounds of numbers, ``allOf``, ``not`` and conditions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from promptsearch.errors import UserError

__all__ = ["MOST_REPEATED", "schema_to_gbnf"]

MOST_REPEATED = 2000  # llama.cpp takes a larger upper bound for none

_ANNOTATIONS = {
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
    *("$schema", "$id", "$comment", "$defs", "definitions"),
}
_KEYWORDS = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength"),
    "integer": (),
    "number": (),
    "boolean": (),
    "null": (),
}
_SHARED_RULES = {
    "space": r'"" | " " | "\n" [ \t]{0,20}',
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" ["\\/bfnrt]',
    "string": r'"\"" char* "\""',
    "integer": r'"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": r'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "array": '"[" space (value space ("," space value space)*)? "]"',
    "member": 'string space ":" space value space',
    "object": '"{" space (member ("," space member)*)? "}"',
    "value": "object | array | string | number | boolean | null",
}


def schema_to_gbnf(schema: Mapping[str, Any], *, line: bool = False) -> str:
    """The grammar of texts that are valid under ``schema``.

    Args:
        schema: with ``type``, ``properties``, ``required``, ``additionalProperties``, ``items``,
            ``prefixItems``, ``minItems``, ``maxItems``, ``minLength``, ``maxLength``, ``enum``, ``const``,
            ``anyOf``, ``oneOf`` (read as ``anyOf``), and ``$ref`` to places in the schema itself.
        line: whether the text is the rest of a line, as it stands in a prompt of lines: a space, the value without
            line breaks, and the end of the line, by which a model tells that a number ends.

    Returns:
        GBNF source whose first rule is ``root``.

    Raises:
        UserError: the schema is not JSON, breaks a rule, or holds a keyword that is not in this list.
    """
    try:
        document = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"json_schema cannot be used, it is no JSON ({error}); give a JSON Schema") from error
    return _Translator(document).grammar(line=line)


def _refused(place: str, problem: str) -> UserError:
    return UserError(
        f"json_schema cannot be used: {place or 'its top'} {problem}; change it, or write the rules as grammar="
    )


class _Translator:
    """Collects rules; every method returns a body or the name of a rule."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._names: dict[str, str] = {}  # name by body
        self._references: dict[str, str] = {}  # name by pointer
        self._rules: dict[str, str] = {}

    def grammar(self, *, line: bool) -> str:
        root = self._body(self._document, "")
        rules = {"root": root, **self._rules, **_SHARED_RULES}
        if line:
            rules |= {"root": r'" " answer "\n"', "answer": root, "space": '"" | " "'}
        return "\n".join(f"{name} ::= {body}" for name, body in rules.items()) + "\n"

    def _rule(self, body: str) -> str:
        """The name of a rule with this body."""
        name = self._names.setdefault(body, f"r{len(self._names)}")
        self._rules[name] = body
        return name

    def _named(self, schema: Any, place: str) -> str:
        return self._rule(self._body(schema, place))

    def _body(self, schema: Any, place: str) -> str:
        if not isinstance(schema, dict):
            raise _refused(place, f"holds {json.dumps(schema)[:40]} where a schema must be")
        given = {name: value for name, value in schema.items() if name not in _ANNOTATIONS}
        for name, read in (
            ("$ref", self._reference),
            ("anyOf", self._alternatives),
            ("oneOf", self._alternatives),
        ):
            if name in given:
                self._require_only(given, {name}, place)
                return read(given[name], f"{place}/{name}")
        for name in ("const", "enum"):
            if name in given:
                self._require_only(given, {name, "type"}, place)
                values = [given[name]] if name == "const" else given[name]
                return _enumeration(values, _kinds(given, place), f"{place}/{name}")
        return self._typed(given, place)

    def _require_only(self, given: Mapping[str, Any], known: set[str], place: str) -> None:
        for name in given:
            if name not in known:
                raise _refused(place, f"holds {name!r}, which cannot be kept here")

    def _typed(self, given: Mapping[str, Any], place: str) -> str:
        """The body of a schema that names a type, several, or none."""
        kinds = _kinds(given, place) or [
            kind for kind, names in _KEYWORDS.items() if any(name in given for name in names)
        ]
        self._require_only(given, {"type", *(name for kind in kinds for name in _KEYWORDS[kind])}, place)
        readers = {"object": self._object, "array": self._array, "string": _string}
        bodies = [readers[kind](given, place) if kind in readers else kind for kind in kinds]
        return " | ".join(bodies) if bodies else "value"

    def _reference(self, pointer: Any, place: str) -> str:
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            raise _refused(place, f"points to {json.dumps(pointer)[:80]}, which is not in the schema itself")
        if pointer in self._references:
            return self._references[pointer]
        name = self._references[pointer] = f"ref{len(self._references)}"  # known first: it may refer to itself
        self._rules[name] = self._body(self._found(pointer, place), pointer)
        return name

    def _found(self, pointer: str, place: str) -> Any:
        target = self._document
        for part in pointer.removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list):
                target = {str(at): item for at, item in enumerate(target)}
            if not isinstance(target, dict) or key not in target:
                raise _refused(place, f"points to {pointer!r}, which is not there")
            target = target[key]
        return target

    def _alternatives(self, schemas: Any, place: str) -> str:
        if not isinstance(schemas, list) or not schemas:
            raise _refused(place, "must be a list of schemas, at least one")
        return " | ".join(self._named(schema, f"{place}/{number}") for number, schema in enumerate(schemas))

    def _object(self, given: Mapping[str, Any], place: str) -> str:
        properties = given.get("properties", {})
        required = given.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise _refused(place, "needs an object as 'properties' and a list as 'required'")
        for name in required:
            if name not in properties:
                raise _refused(place, f"requires {json.dumps(name)}, which is not among its properties")
        further = given.get("additionalProperties", "properties" not in given)
        if further is not False:
            if properties:  # an unnamed member might repeat a name with another value
                raise _refused(place, "allows additionalProperties beside named ones")
            value = "value" if further is True else self._named(further, f"{place}/additionalProperties")
            member = self._rule(f'string space ":" space {value} space')
            return f'"{{" space ({member} ("," space {member})*)? "}}"'
        return f'"{{" space {self._rule(self._members(properties, required, place))} "}}"'

    def _members(self, properties: Mapping[str, Any], required: list[Any], place: str) -> str:
        """Named members in their order, where those not required may lack."""
        later, first = '""', '""'  # what may follow after a member, and where none was written yet
        for name, schema in reversed(list(properties.items())):
            value = self._named(schema, f"{place}/properties/{name}")
            member = f'{_literal(name)} space ":" space {value} space'
            rest, start = self._rule(later), self._rule(first)
            later, first = f'"," space {member} {rest}', f"{member} {rest}"
            if name not in required:
                later, first = f"{later} | {rest}", f"{first} | {start}"
        return first

    def _array(self, given: Mapping[str, Any], place: str) -> str:
        if "prefixItems" in given:
            self._require_only(given, {"type", "prefixItems"}, place)
            schemas = given["prefixItems"]
            if not isinstance(schemas, list) or not schemas:
                raise _refused(place, "needs a list of schemas as 'prefixItems'")
            items = [self._named(schema, f"{place}/prefixItems/{at}") for at, schema in enumerate(schemas)]
            return '"[" space ' + ' "," space '.join(f"{item} space" for item in items) + ' "]"'
        item = self._named(given["items"], f"{place}/items") if "items" in given else "value"
        low, high = _bounds(given, "minItems", "maxItems", place)
        if high == 0:
            return '"[" space "]"'
        rest = f'("," space {item} space){_repeated(max(low - 1, 0), None if high is None else high - 1)}'
        filled = f"{item} space {rest}"
        return f'"[" space ({filled}){"" if low else "?"} "]"'


def _kinds(given: Mapping[str, Any], place: str) -> list[str]:
    """The types that a schema names; empty where it names none."""
    if "type" not in given:
        return []
    kinds = [given["type"]] if isinstance(given["type"], str) else given["type"]
    known = isinstance(kinds, list) and kinds and all(isinstance(kind, str) and kind in _KEYWORDS for kind in kinds)
    if not known:
        raise _refused(place, f"has the type {json.dumps(given['type'])[:40]}, which JSON Schema does not know")
    return list(kinds)


def _enumeration(values: Any, kinds: list[str], place: str) -> str:
    """The values that are of one of these types; all of them where no type is named."""
    if not isinstance(values, list) or not values:
        raise _refused(place, "must be a list of values, at least one")
    left = [value for value in values if not kinds or any(_is_a(kind, value) for kind in kinds)]
    if not left:
        raise _refused(place, f"has no value of the type {' or '.join(kinds)}")
    return " | ".join(map(_literal, left))


def _is_a(kind: str, value: Any) -> bool:
    """Whether a JSON value is of a type; 1.0 is an integer, and true no number."""
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    classes: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "number": (int, float),
        "null": type(None),
    }
    return kind in classes and isinstance(value, classes[kind])


def _string(given: Mapping[str, Any], place: str) -> str:
    low, high = _bounds(given, "minLength", "maxLength", place)
    return r'"\"" char' + _repeated(low, high) + r' "\""'


def _bounds(given: Mapping[str, Any], least: str, most: str, place: str) -> tuple[int, int | None]:
    low, high = given.get(least, 0), given.get(most)
    for name, value in ((least, low), (most, high)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise _refused(place, f"has {json.dumps(value)} as {name!r}, which must be a whole number from 0")
        if value is not None and value > MOST_REPEATED:
            raise _refused(place, f"has {value} as {name!r}; a grammar counts to {MOST_REPEATED}")
    if high is not None and high < low:
        raise _refused(place, f"has {most!r} below {least!r}")
    return low, high


def _repeated(low: int, high: int | None) -> str:
    return f"{{{low},{'' if high is None else high}}}"


def _literal(value: Any) -> str:
    """A JSON value, as ``json`` writes it, as a literal."""
    text = json.dumps(value, ensure_ascii=False)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
