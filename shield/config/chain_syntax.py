"""A rule's `over_limit` chain as settings write it: texts such as `wait 200ms`, or tables."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, TypeGuard

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from shield.config.problems import allowed
from shield.config.registry import Registry
from shield.settings_model import nearest
from shield.url import is_url, masked

SCHEMA = {"anyOf": [{"type": "string"}, {"type": "object", "minProperties": 1, "maxProperties": 1}]}


class ActionChoice(BaseModel):
    """One link of a chain: which action, with which settings."""

    name: str
    settings: Any
    text: Any = Field(default=None, repr=False)
    """As it stood in the settings."""

    def __str__(self) -> str:
        return str(self.text)


def chain_type(registry: Registry) -> Any:
    """Return the type of `over_limit` with these actions: a list of choices, or one alone."""
    link = Annotated[
        ActionChoice,
        BeforeValidator(_parser(registry)),
        PlainSerializer(lambda choice: choice.text),
        WithJsonSchema(SCHEMA),
    ]
    return Annotated[
        list[link],
        BeforeValidator(
            lambda value: value if isinstance(value, list) else [value],
            json_schema_input_type=link | list[link],
        ),
        AfterValidator(_ender(registry)),
    ]


def _parser(registry: Registry) -> Callable[[Any], ActionChoice]:
    def parse(value: Any) -> ActionChoice:
        name, given = _split(value, registry)
        action = registry.actions.get(name)
        if action is None:
            raise _wrong(f"unknown action {name!r}; {nearest(name, list(registry.actions))}")
        if not isinstance(given, dict):
            if given is not None and action.argument is None:
                raise _wrong(f"{name!r} takes nothing behind it; found {given!r}")
            if action.one_word and _has_blanks(given) and not is_url(given):
                raise _wrong(
                    f"{name!r} takes one name; found {given!r}, which has blanks; allowed for a "
                    f"name with blanks is a table: {{ {name} = {{ {action.argument} = ... }} }}"
                )
            given = {} if given is None else {action.argument: given}
        try:
            settings = action.Settings.model_validate(given)
        except ValidationError as error:
            raise _wrong(_first_problem(name, error)) from None
        return ActionChoice(name=name, settings=settings, text=value)

    return parse


def _has_blanks(given: object) -> TypeGuard[str]:
    return isinstance(given, str) and len(given.split()) > 1


def _split(value: Any, registry: Registry) -> tuple[str, Any]:
    """Return the action's name and what stands behind it."""
    if isinstance(value, str) and value.strip():
        name, _, rest = value.strip().partition(" ")
        return name, rest.strip() or None
    if isinstance(value, dict) and len(value) == 1:
        return next(iter(value.items()))
    raise _wrong(
        'an action is a text as "wait 200ms", or a table with one key as { wait = "200ms" }; '
        + nearest("", list(registry.actions))
    )


def _first_problem(name: str, error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"])) or first.get("ctx", {}).get("key", "")
    if first["type"] == "missing":
        return f'{name}: {key} is missing; allowed is "{name} {key.upper()}"'
    return f"{name}: {key}: {allowed(first)}" if key else f"{name}: {allowed(first)}"


def _ender(registry: Registry) -> Callable[[list[ActionChoice]], list[ActionChoice]]:
    def check(chain: list[ActionChoice]) -> list[ActionChoice]:
        if not chain:
            raise _wrong(
                "an empty chain; allowed is at least one action, and a rule that has no chain at "
                f"all raises; {nearest('', list(registry.actions))}"
            )
        for last, after in pairwise(chain):
            if registry.actions[last.name].final:
                raise _wrong(
                    f"{after.text!r} stands after {last.name!r}, which always ends a chain; "
                    f"allowed is {last.name!r} as the last one only"
                )
        return chain

    return check


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("action", "{message}", {"message": masked(message)})
