"""The rooms of a Shield: each does one thing, over the core that all of them share.

A room is a class whose methods are the Shield's own: a `Shield` is all of them together, so that a
message pays for no call that only hands it on, and a method is written down once. A room knows its
core, the claims and policies it is given, and no other room: what two of them need is in `core.py`
(one lock, the books, and each step of a message's account under it), `claims.py` (what is open),
`flows.py` (what applies to a message) or `judge.py` (what the policies say). So each can be read,
and made, alone.

    admission.py    offers of messages, deliveries and what comes back, each decided on
    runs.py         deliveries that are offered and acknowledged many at once
    intake.py       what a consumer's rules say before it asks its broker for anything
    ends.py         permits and verdicts that come to their end
    queues.py       admitted messages that wait in a queue of Shield's own
    aside.py        messages that are buffered, spooled or sent elsewhere
    in_line.py      messages over the limit that wait for their turn
    lifecycle.py    clients that open, flush and close
    overview.py     accounts, pressure and state, to look at
    reports.py      what plugins are told, and what of them failed
"""
