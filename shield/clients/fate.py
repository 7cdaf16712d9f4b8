"""What became of the message whose publish returned this future."""

from __future__ import annotations

from functools import singledispatch


@singledispatch
def fate(future: object) -> str:
    """Return `sent`, `dropped`, `buffered`, `spooled` or `overflowed`, for every client's future.

    It says which way the message went, not whether it has arrived: the future itself tells that.
    So a message that was buffered, and is sent meanwhile, is still `buffered`.
    A future that fails with `OverLimitError`, because a chain went on behind a failed overflow and
    ran out, says `raised`.
    Adapters register their clients' classes here.

    Raises:
        TypeError: it is nothing that a publish has returned.
    """
    found = getattr(future, "shield_fate", None)
    if not isinstance(found, str):
        raise TypeError(
            f"fate: found {type(future).__name__}; allowed is what a shielded client's publish "
            "has returned, or a shielded channel"
        )
    return found
