"""Deciding and accounting: one core with one lock, and parts that each do one thing over it.

A part is a class whose methods are the Shield's own, so that a message pays for no call that only
hands it on. It knows its core, and the claims and policies it is given, and no other part: what two
of them need is in `core.py` (the lock, and each step of a message's account under it), `claims.py`
(what is open), `policy_sets.py` (what applies to a message) or `evaluator.py` (what the policies
say). So each can be read, and made, alone.

    admission.py      offers of messages, deliveries and what comes back, each decided on
    batches.py        deliveries that are offered and acknowledged many at once
    consume_hints.py  what a consumer's rules say before it asks its broker for anything
    settlement.py     permits and verdicts that come to their end
    diversion.py      messages that are buffered, spooled or sent elsewhere
    lifecycle.py      clients that open, flush and close
    queueing/         messages over the limit that wait, and admitted ones in a queue of Shield's
    reporting/        accounts, pressure and state, what plugins are told, and the log
"""
