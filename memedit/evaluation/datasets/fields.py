"""The fields of a raw record, read with their type checked, and named in full where they are wrong.

Knows nothing of benchmarks, files or cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memedit.errors import InvalidCaseError
from memedit.suggestions import nearest


class Fields:
    """A JSON object whose values are read by name and type.

    Args:
        values: The object.
        path: Where it stands in its record, such as ``locality.Forgetfulness[0]``; empty for the record itself.
    """

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self.values = values
        self._path = path

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) not in (None, "")

    def name(self, key: str) -> str:
        """Returns the full name of a field, as messages give it."""
        return f"{self._path}.{key}" if self._path else key

    def text(self, *keys: str) -> str:
        """Returns the text of the first of some fields that is there; surrounding white space goes.

        Raises:
            InvalidCaseError: None of them is there, or it holds no text.
        """
        for key in keys:
            if key in self.values:
                return self._text(self.values[key], self.name(key))
        near = nearest(keys[0], self.values)
        hint = "." if near is None else f"; did you mean it by '{near}'?"
        raise InvalidCaseError(f"the field '{self.name(keys[0])}' is missing{hint}")

    def optional_text(self, key: str) -> str | None:
        """Returns the text of a field, None where it is absent, null or empty."""
        return self.text(key) if key in self else None

    def identity(self, *keys: str) -> str | None:
        """Returns the first of some fields that name the record, as text; None where there is none."""
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
                return str(value)
        return None

    def texts(self, key: str) -> tuple[str, ...]:
        """Returns the texts of a field that holds one or a list; empty where it is absent or null.

        Raises:
            InvalidCaseError: It holds something that is no text.
        """
        value = self.values.get(key)
        if value is None or value == "":
            return ()
        if isinstance(value, str):
            return (self._text(value, self.name(key)),)
        if not isinstance(value, Sequence):
            raise InvalidCaseError(
                f"the field '{self.name(key)}' must be a text or a list, not {type(value).__name__}."
            )
        return tuple(self._text(one, f"{self.name(key)}[{place}]") for place, one in enumerate(value))

    def aliases(self, key: str) -> tuple[str, ...]:
        """Returns the answers of a field, each once: a text, or lists of texts, however deeply one lies in another.

        Empty texts and empty lists are left out, so the answers may be none.

        Raises:
            InvalidCaseError: It holds something that is neither text, number nor list.
        """
        return tuple(dict.fromkeys(self._flat(self.values.get(key), self.name(key))))

    def part(self, key: str) -> Fields:
        """Returns the object of a field; an empty one where it is absent or null.

        Raises:
            InvalidCaseError: It holds something else.
        """
        value = self.values.get(key)
        if value is None:
            return Fields({}, self.name(key))
        return _as_fields(value, self.name(key))

    def parts(self, key: str) -> list[Fields]:
        """Returns the objects of a field that holds a list of them; none where it is absent or null.

        Raises:
            InvalidCaseError: It holds something else.
        """
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise InvalidCaseError(f"the field '{self.name(key)}' must be a list, not {type(value).__name__}.")
        return [_as_fields(one, f"{self.name(key)}[{place}]") for place, one in enumerate(value)]

    def filled(self, key: str, subject: str) -> str:
        """Returns the template of a field with the subject in the place of its one ``{}``.

        Raises:
            InvalidCaseError: It has no ``{}``, or several.
        """
        template = self.text(key)
        if template.count("{}") != 1:
            raise InvalidCaseError(
                f"the field '{self.name(key)}' must hold {{}} once, for the subject; it is {template!r}."
            )
        return template.replace("{}", subject)

    def _text(self, value: object, name: str) -> str:
        if not isinstance(value, str):
            raise InvalidCaseError(f"the field '{name}' must be text, not {_kind(value)}.")
        if not value.strip():
            raise InvalidCaseError(f"the field '{name}' is empty.")
        return value.strip()

    def _flat(self, value: object, name: str) -> list[str]:
        if value is None:
            return []
        if isinstance(value, str):
            return [value.strip()] if value.strip() else []
        if isinstance(value, int | float) and not isinstance(value, bool):
            return [str(value)]
        if isinstance(value, list):
            return [text for place, one in enumerate(value) for text in self._flat(one, f"{name}[{place}]")]
        raise InvalidCaseError(f"the field '{name}' must be text or lists of texts, not {_kind(value)}.")


def _as_fields(value: object, name: str) -> Fields:
    if not isinstance(value, dict):
        raise InvalidCaseError(f"the field '{name}' must be an object, not {_kind(value)}.")
    return Fields(value, name)


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
