"""`python -m integration.brokers [NAME...]`: brokers to try things on, until Ctrl-C."""

import argparse
import signal
import sys
import time
from contextlib import ExitStack

from integration.brokers import ALL, Broker, BrokerError, Kind, shared

_HELP = """\
Starts the named brokers (all three by default) and stays until Ctrl-C, then stops them and throws
their data away. Each comes from its SHIELD_TEST_* variable where set, else from Docker where an
engine answers, else it is installed and started as a process of this machine;
SHIELD_TEST_BROKERS=docker or =native forces one way.
"""
_EXAMPLE = """\
Where each listens is printed as a line for a shell; in a second terminal, for example:

  export SHIELD_TEST_KAFKA=127.0.0.1:23456      (a printed line)
  pytest integration                            (now uses this broker and starts faster)
"""
_KINDS = {kind.name: kind for kind in ALL}


def main() -> None:
    """Start, print, wait, stop."""
    names = _parse().names or list(_KINDS)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop on SIGTERM as on Ctrl-C
    try:
        with ExitStack() as running:
            for name in names:
                _start(_KINDS[name], running)
            _say("ready; Ctrl-C stops")
            signal.pause()
    except KeyboardInterrupt:
        _say("stopped")
    except BrokerError as error:
        sys.exit(str(error))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m integration.brokers",
        description=_HELP,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listed = ", ".join(_KINDS)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"any of {listed}")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(_KINDS):
        parser.error(f"unknown broker {', '.join(sorted(unknown))}: choose from {listed}")
    return arguments


def _start(kind: Kind[Broker], running: ExitStack) -> None:
    _say(f"{kind.name}: starting")
    begun = time.monotonic()
    broker = running.enter_context(shared(kind))
    _say(f"{kind.name}: {broker.way}, ready after {time.monotonic() - begun:.1f} s")
    print(f"export {kind.variable}={broker.address}", flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
