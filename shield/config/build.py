"""Turns settings into rules whose policies and actions are ready to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from shield.action import Action
from shield.capabilities import Validates
from shield.config.gc_pause import at_rest
from shield.config.plugin_checks import directions_of
from shield.config.registry import Registry
from shield.config.settings import Mode, RuleSettings, ShieldSettings
from shield.config.transports import Transports
from shield.errors import SettingsError
from shield.plugin_results import shown
from shield.policy import Policy
from shield.rule import Rule
from shield.url import masked


@at_rest()
def compile_rules(settings: ShieldSettings, registry: Registry) -> tuple[Rule, ...]:
    """Return the rules in file order; those whose mode is `off` are left out.

    Raises:
        SettingsError: settings that are impossible together, each with its key.
    """
    problems: list[str] = []
    rules: list[Rule] = []
    names: set[str] = set()
    transports = Transports(registry, settings.credentials)
    for index, table in enumerate(settings.rules):
        where = f"rules[{index}]"
        rule = _rule(table, index, settings, registry, transports)
        if rule.name in names:
            problems.append(
                f"{where}.name: found {rule.name!r}, another rule's name already; "
                "allowed is a name of its own"
            )
        names.add(rule.name)
        rules.append(rule)
        problems += _fill(rule, table, registry, where)
    if problems:
        raise SettingsError(*(f"{settings.source}: {problem}" for problem in problems))
    modes = [_mode(table, settings) for table in settings.rules]
    return tuple(rule for rule, mode in zip(rules, modes, strict=True) if mode != "off")


def _mode(table: RuleSettings, settings: ShieldSettings) -> Mode:
    """Return the rule's own mode, else the process's; that the process is off beats both."""
    return "off" if settings.mode == "off" else table.mode or settings.mode


def _rule(
    table: RuleSettings,
    index: int,
    settings: ShieldSettings,
    registry: Registry,
    transports: Transports,
) -> Rule:
    return Rule(
        name=table.name or f"rule-{index + 1}",
        match=table.match,
        exclude=table.exclude,
        producers=table.producers,
        direction=table.direction,
        shadow=_mode(table, settings) == "shadow",
        redrive=table.redrive,
        resolve=registry.resolver,
        transport=transports.to,
        source=transports.source,
        url=settings.url,
    )


def _fill(rule: Rule, table: RuleSettings, registry: Registry, where: str) -> list[str]:
    """Make the rule's policies and actions; return what is wrong with them."""
    return [
        *_add_policies(rule, table, registry, where),
        *_add_chain(rule, table, registry, where),
        *_wrong_redrive(rule, registry, where),
        *_impossible(rule, registry, where),
    ]


def _add_policies(rule: Rule, table: RuleSettings, registry: Registry, where: str) -> Iterator[str]:
    given = [name for name in registry.policies if name in table.model_fields_set]
    for name in given:
        kind = registry.policies[name]
        for number, chosen in enumerate(getattr(table, name)):
            if number == 0:
                yield from _misdirected(name, registry.policies, rule, f"{where}.{name}")
            try:
                policy = kind(chosen, rule, name)
                _made_whole(policy, rule, name)
                rule.policies.append(policy)
            except ValueError as error:
                yield f"{where}.{name}[{number}].{error}"
            except Exception as error:
                yield _failed(f"{where}.{name}[{number}]", registry, kind, error)


def _add_chain(rule: Rule, table: RuleSettings, registry: Registry, where: str) -> Iterator[str]:
    for number, link in enumerate(table.over_limit):
        at = f"{where}.over_limit[{number}]"
        yield from _misdirected(link.name, registry.actions, rule, at)
        kind = registry.actions[link.name]
        try:
            action = kind(link.settings, rule, link.name)
            _made_whole(action, rule, link.name)
            rule.chain.append(action)
            action.validate()
        except ValueError as error:
            yield f"{at}: found {masked(repr(link.text))}; {error}"
        except Exception as error:
            yield _failed(at, registry, kind, error)


def _wrong_redrive(rule: Rule, registry: Registry, where: str) -> Iterator[str]:
    if rule.redrive is None:
        return
    if rule.direction != "publish":
        yield (
            f"{where}.redrive: found {rule.redrive!r} with direction {rule.direction!r}; allowed "
            "with direction 'publish': bring back with `shield redrive` what a consumer diverted"
        )
    if not any(action.overrides("way_back") for action in rule.chain):
        able = sorted(n for n, kind in registry.actions.items() if kind.overrides("way_back"))
        yield (
            f"{where}.redrive: found {rule.redrive!r}, and nothing in over_limit sends messages "
            f"where they could come back from; allowed with {' or '.join(able)} in it"
        )


def _impossible(rule: Rule, registry: Registry, where: str) -> Iterator[str]:
    """Ask policies, now that the whole chain is known."""
    for policy in rule.policies:
        if not isinstance(policy, Validates):
            continue
        try:
            policy.validate()
        except ValueError as error:
            yield f"{where}.{policy.name}: {error}"
        except Exception as error:
            yield _failed(f"{where}.{policy.name}", registry, type(policy), error)


def _made_whole(one: Policy | Action, rule: Rule, name: str) -> None:
    """Refuse one whose own `__init__` has left out that of its base."""
    if getattr(one, "rule", None) is not rule or getattr(one, "name", None) != name:
        raise TypeError(f"{type(one).__qualname__}.__init__ does not call super().__init__")


def _failed(where: str, registry: Registry, kind: object, error: Exception) -> str:
    """Name the plugin that fails where its settings are read."""
    origin = registry.origin_of(kind)
    of = f" ({origin})" if origin else ""
    return f"{where}: {getattr(kind, '__qualname__', kind)}{of} raised {shown(error)}"


def _misdirected(
    name: str, kinds: Mapping[str, type[Policy] | type[Action]], rule: Rule, where: str
) -> list[str]:
    """Return what is wrong with a policy or action that has no meaning in the rule's direction."""
    if rule.direction in directions_of(kinds[name]):
        return []
    able = sorted(name for name, kind in kinds.items() if rule.direction in directions_of(kind))
    return [
        f"{where}: found {name!r} in a rule with direction {rule.direction!r}; allowed there is "
        f"{', '.join(able)}"
    ]
