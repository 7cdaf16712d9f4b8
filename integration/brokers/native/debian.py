"""Programs from Debian's archive."""

import os
import shutil
import sys
import time
from collections.abc import Mapping

from integration.brokers.broker import BrokerError
from integration.brokers.native.cache import locked
from integration.brokers.native.command import output_of

_UNATTENDED = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
_OTHER_APT_ENDS_WITHIN_S = 300.0


def install_missing(packages: Mapping[str, str], *, instead: str) -> None:
    """Install the package of each program that is not here; `packages` is by program.

    Without root or apt-get it raises, naming the packages and the variable to set `instead`.
    """
    if not _missing(packages):
        return
    with locked("apt"):
        wanted = _missing(packages)  # another process may just have installed them
        if wanted:
            _install(wanted, instead)


def _missing(packages: Mapping[str, str]) -> list[str]:
    return [package for program, package in packages.items() if not shutil.which(program)]


def _install(wanted: list[str], instead: str) -> None:
    names = " ".join(wanted)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BrokerError(_advice(f"not installed: {names}", names, instead))
    print(f"installing {names}", file=sys.stderr)
    try:
        _apt_get("update", "-qq")
        _apt_get("install", "-y", "-qq", "--no-install-recommends", *wanted)
    except BrokerError as error:
        raise BrokerError(_advice(str(error), names, instead)) from None


def _apt_get(*arguments: str) -> None:
    # Another apt may be at work, for instance a fresh machine's own at its first start. Its option
    # DPkg::Lock::Timeout would wait for one of the three locks only.
    deadline = time.monotonic() + _OTHER_APT_ENDS_WITHIN_S
    while True:
        try:
            output_of(["apt-get", *arguments], env=_UNATTENDED)
            return
        except BrokerError as error:
            if "Could not get lock" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(2)


def _advice(problem: str, names: str, instead: str) -> str:
    return (
        f"{problem}\nA native broker needs them: `apt-get install {names}` as root (run as root,"
        " the tests do it themselves).\nOr do without: start a Docker engine, or set"
        f" {instead} to the address of a broker that runs."
    )
