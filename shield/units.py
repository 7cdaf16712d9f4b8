"""Rates, sizes, times and shares as people write them: `500/s`, `64MiB`, `200ms`, `20%`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import Annotated

from pydantic import BeforeValidator, GetCoreSchemaHandler
from pydantic_core import core_schema

BYTES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
BYTES |= {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}

_NUMBER = r"(?P<number>[+-]?\d[\d_]*(?:\.\d+)?)"
_RATE = re.compile(rf"\s*{_NUMBER}\s*(?P<bytes>[A-Za-z]*)\s*/\s*(?P<per>[A-Za-z]+)\s*")
_AMOUNT = re.compile(rf"\s*{_NUMBER}\s*(?P<unit>[A-Za-z]*)\s*")
_PERCENT = re.compile(rf"\s*{_NUMBER}\s*%\s*")

RATE_HELP = 'allowed is a number above 0 with its unit, as "500/s", "90/m", "5MiB/s" (/s /m /h /d)'
SIZE_HELP = 'allowed is a whole number of bytes or a text as "64MiB" (B KiB MiB GiB TiB KB MB GB)'
SHARE_HELP = 'allowed is a part of the whole from 0 to 1, or a text as "20%"'
DURATION_HELP = 'allowed is a time above 0 with its unit, as "200ms", "1.5s", "2m" (ms s m h d)'


@dataclass(frozen=True, slots=True)
class Rate:
    """An amount per second, of messages or of bytes."""

    per_second: float
    in_bytes: bool = False
    text: str = ""

    @classmethod
    def parse(cls, text: object) -> Rate:
        """Read `500/s` or `5MiB/s`; ValueError says what is allowed."""
        if isinstance(text, Rate):
            return text
        found = _RATE.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ValueError(f"a rate needs a unit; {RATE_HELP}")
        number, unit, per = float(found["number"]), found["bytes"], found["per"]
        if per not in SECONDS or per == "ms" or (unit and unit not in BYTES):
            raise ValueError(f"unknown unit {unit + '/' + per!r}; {RATE_HELP}")
        if number <= 0:
            raise ValueError(f"a rate is above 0; {RATE_HELP}")
        if number == inf:
            raise ValueError(f"a rate is finite; {RATE_HELP}")
        return cls(number * BYTES.get(unit, 1) / SECONDS[per], bool(unit), str(text).strip())

    def __str__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(
            cls.parse,
            core_schema.is_instance_schema(cls),
            serialization=core_schema.to_string_ser_schema(),
            json_schema_input_schema=core_schema.str_schema(
                pattern=r"^[\d_.]+\s*\w*\s*/\s*[smhd]$"
            ),
        )


def parse_size(value: object) -> int:
    """Read bytes from 1048576 or `"1MiB"`; ValueError says what is allowed."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if found is None or (found["unit"] or "B") not in BYTES or float(found["number"]) == inf:
        raise ValueError(f"not a size; {SIZE_HELP}")
    return int(float(found["number"]) * BYTES[found["unit"] or "B"])


def parse_seconds(value: object) -> float:
    """Read seconds from 0.2 or `"200ms"`; ValueError says what is allowed."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        found = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
        if found is None or found["unit"] not in SECONDS:
            raise ValueError(f"not a time; {DURATION_HELP}")
        seconds = float(found["number"]) * SECONDS[found["unit"]]
    if not 0 < seconds < inf:
        raise ValueError(f"a time is above 0, and finite; {DURATION_HELP}")
    return seconds


def parse_share(value: object) -> float:
    """Read a part of a whole from 0.2 or `"20%"`; ValueError says what is allowed."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        share = float(value)
    else:
        found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError(f"not a share; {SHARE_HELP}")
        share = float(found["number"]) / 100
    if not 0 <= share <= 1:
        raise ValueError(f"a share is from 0 to 1; {SHARE_HELP}")
    return share


ByteSize = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=int | str)]
Seconds = Annotated[float, BeforeValidator(parse_seconds, json_schema_input_type=float | str)]
Share = Annotated[float, BeforeValidator(parse_share, json_schema_input_type=float | str)]
