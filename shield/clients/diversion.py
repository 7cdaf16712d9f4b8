"""A message on its way elsewhere, through a transport: published, or taken by a consumer."""

from __future__ import annotations

from collections.abc import Callable

from shield.envelope import Envelope
from shield.transport import Done, Transport, once
from shield.verdict import OverLimit


def send_through(
    transport: Transport,
    client: Transport,
    over: OverLimit,
    envelope: Callable[[], Envelope],
    ended: Done,
) -> None:
    """Send a message; `ended` is called once, from any thread, also where nothing can be sent.

    The transport has `answer_within` to say what became of it, and less where the client closes.

    Args:
        transport: where it goes.
        client: who gives it up on closing: the message's own client, or the transport itself.
        over: the message's verdict.
        envelope: returns the whole message, with the headers that say why it is diverted.
        ended: called with None where it is there, else with what went wrong.
    """
    engine = over.engine

    def end(error: Exception | None) -> None:
        engine.heard_of(number)
        ended(error)

    answered = once(end)
    number = engine.hands_on(client, answered)
    try:
        transport.send(envelope(), answered)
    except Exception as error:
        engine.plugin_failed(transport, error)
        answered(error)
