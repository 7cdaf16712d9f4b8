"""Deciding and accounting: one core with one lock, and parts that each do one thing over it.

A part is a class with one job. It knows its core, the verdicts and policies it is given, and no
other part: what two of them need is in `core.py` (one lock, the books, and each step of a message's
account under it), `claims.py` (what is open), `policy_sets.py` (what applies to a message) or
`evaluator.py` (what the policies say). So each can be read, and made, alone.

    engine.py                   the engine: its parts, and each entry point bound to one of them
    admission.py                offers of messages, deliveries and what comes back, each decided on
    batches.py                  deliveries that are offered and acknowledged many at once
    consume_hints.py            what a consumer's rules say before it asks its broker for anything
    settlement.py               permits and verdicts that come to their end
    diversion.py                messages that are buffered, spooled or sent elsewhere
    lifecycle.py                clients that open, flush and close
    queueing/sojourn.py         admitted messages that wait in a queue of Shield's own
    queueing/waiting.py         messages over the limit that wait for their turn
    reporting/inspection.py     accounts, pressure and state, to look at
    reporting/observation.py    what plugins are told, and what of them failed
"""
