"""What all specs share: immutable, checked, one kind of error, and a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from diffractory.errors import SpecError


def canonical_json(value: Any) -> str:
    """Serialise plain JSON data with sorted keys and no spaces, so that it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_of(value: Any) -> str:
    """Return the sha256 of the canonical JSON of ``value`` as hexadecimal text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Checked(BaseModel):
    """Values that are checked when they are set, and never change: no unknown keys, one kind of error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _spec_error(type(self).__name__, error) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some values changed, checked like any other.

        Parameters
        ----------
        update : mapping of str to value, optional
            New values by the names of settings.
        deep : bool
            Of no effect, as nothing in it can change: pydantic has it.

        Returns
        -------
        Checked
            Of the same kind.

        Raises
        ------
        SpecError
            If a value is unknown or out of range.
        """
        return type(self)(**{**self.model_dump(), **(update or {})})


class Spec(Checked):
    """Base of all specs: settings that change results, with a hash that goes into every output."""

    @property
    def spec_id(self) -> str:
        """sha256 of the canonical JSON of this spec."""
        return sha256_of(self.model_dump(mode="json"))

    def to_json(self) -> str:
        """Return this spec as JSON text; :meth:`from_json` reads it back."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a spec from JSON text.

        Parameters
        ----------
        text : str
            As :meth:`to_json` writes it.

        Returns
        -------
        Spec
            Of this kind.

        Raises
        ------
        SpecError
            If the text is not JSON, or a value is missing, unknown or out of range.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"{cls.__name__}: not valid JSON ({error})") from None
        if not isinstance(values, dict):
            raise SpecError(f"{cls.__name__}: expected a JSON object, got {type(values).__name__}")
        return cls(**values)


def _spec_error(name: str, error: ValidationError) -> SpecError:
    problems = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "value"
        problems.append(f"{where} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}")
    return SpecError(f"{name} refused: " + "; ".join(problems), fix="Correct the value and run again")


def as_tuple(value: Any) -> Any:
    """Make a tuple of one number, a list or an array; leave the rest to be refused."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, (int, float)):
        return (plain,)
    return tuple(plain) if isinstance(plain, list) else plain
