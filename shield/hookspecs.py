"""Everything a plugin can contribute. Read this file and you know what Shield can be made to do.

A plugin is a module or an object with functions of these names, each marked `@shield.hookimpl`,
named in an entry point of group "shield" (or handed to `Shield(plugins=[...])`):

    [project.entry-points.shield]
    quiet_hours = "quiet_hours"

Hooks that contribute kinds are called once, when a Shield is made. Those that look at messages
are called for each message, in the order plugins were registered (after-hooks in reverse), and
cost nothing when nobody implements them. A plugin that raises, or returns what it must not, is
isolated: counted, logged once a minute by name and distribution, and treated as `on_plugin_error`
says. What is no `Exception`, as SystemExit, goes to the message's caller; Shield's own threads go
on whatever it is. A hook takes all the arguments that it has here, is neither async nor a wrapper:
others are refused when they are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Hashable

    import typer

    from shield.action import Action
    from shield.delivery import Delivery
    from shield.demo import Demo
    from shield.events import Event
    from shield.message import Message
    from shield.policy import KeyOf, Policy
    from shield.provisioning import Provisioner
    from shield.transport import Transport
    from shield.verdict import Outcome

hookspec = pluggy.HookspecMarker("shield")
hookimpl = pluggy.HookimplMarker("shield")


@dataclass(frozen=True, slots=True)
class Labels:
    """What a classifier says of a message; None where it has nothing to say."""

    producer: str | None = None
    tenant: Hashable = None
    priority: str | None = None
    deadline: float | None = None


@hookspec
def shield_policies() -> Mapping[str, type[Policy]]:  # type: ignore[empty-body]
    """Return policy kinds by the name that `[[rules]]` uses.

    return {"quiet_hours": QuietHours}
    """


@hookspec
def shield_actions() -> Mapping[str, type[Action]]:  # type: ignore[empty-body]
    """Return over-limit actions by the name that `over_limit` uses.

    return {"drop_large": DropLarge}
    """


@hookspec
def shield_resolvers() -> Mapping[str, Callable[[str | None], KeyOf]]:  # type: ignore[empty-body]
    """Return what `per` of a quota may say: a name, and how to find a message's key.

    The function is called once a rule, with what stands behind the colon, or None; it raises
    ValueError where it needs, or does not take, such an argument.

    return {"tenant": lambda argument: lambda message: message.tenant}
    """


@hookspec
def shield_transports() -> Mapping[str, type[Transport]]:  # type: ignore[empty-body]
    """Return what sends messages to other places, and reads them back, by the scheme of URLs.

    return {"s3": S3}
    """


@hookspec
def shield_classify(message: Message) -> Labels | None:
    """Say who a message's producer, tenant, priority or deadline is; the first to say so wins.

    return Labels(producer=message.header("service"))
    """


@hookspec
def shield_before_publish(message: Message) -> None:
    """Look at or label a message before it is decided on; raise `shield.Reject` to refuse it.

    Headers are added with `message.add_header(name, text_or_bytes)`, the same for every client;
    those that are there cannot be written to. A Reject is also an error of the client's own.

    if message.size > 1_000_000: raise Reject("above 1 MB")
    """


@hookspec
def shield_after_publish(message: Message, outcome: Outcome) -> None:
    """Hear how an admitted message ended; called in reverse order, maybe on a client's I/O thread.

    latency.observe(clock() - started.pop(message))
    """


@hookspec
def shield_before_consume(message: Delivery) -> None:
    """Look at or label a delivery before it is decided on; raise `shield.Reject` to refuse it.

    What is refused is counted as dropped: skipped on Kafka, rejected without requeue on RabbitMQ.

    if message.header("schema") != "v2": raise Reject("unknown schema")
    """


@hookspec
def shield_after_consume(message: Delivery, outcome: Outcome) -> None:
    """Hear how a delivery that was handed over ended; called in reverse order.

    `delivered` is acknowledged or committed, `failed` went back to its broker.

    handled.labels(message.destination, outcome).inc()
    """


@hookspec
def shield_on_event(event: Event) -> None:
    """Observe what happens to messages; must not block.

    if event.kind is Kind.OVER_LIMIT: counter.labels(event.rule).inc()
    """


@hookspec
def shield_demos() -> Mapping[str, Callable[[str | None], Demo[Any]]]:  # type: ignore[empty-body]
    """Return the clients that `shield demo --broker NAME` can show.

    The function gets the address of a real broker, or None for an embedded one; it may import
    the client, and raises ShieldError where that is not installed.

    return {"kafka": kafka_demo}
    """


@hookspec
def shield_setups() -> Mapping[str, Callable[[str | None, int | None], Provisioner]]:  # type: ignore[empty-body]
    """Return how `shield setup --broker NAME` makes overflow destinations on a broker.

    The function gets the broker's address, or None for the usual one on this machine, and how
    many partitions a new topic is to have, or None; it raises ShieldError where it cannot be.

    return {"nats": lambda address, partitions: NatsSetup(address)}
    """


@hookspec
def shield_commands(cli: typer.Typer) -> None:
    """Add subcommands to the `shield` command.

    cli.command("top")(top)
    """
