"""What verdicts, chains, actions and redrives may ask of the engine that decides.

A Protocol, so that none of them needs the engine's modules: it stands below all of them in the
order of packages. It is generic in verdicts and refusals, and needs not their module.
What waits in a wait queue has a ticket, which its holder only hands back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from shield.accounts import Account, End
    from shield.algorithms.retry_budget import RetryBudget
    from shield.clock import Clock
    from shield.events import Kind
    from shield.message import Message
    from shield.signing import Signer
    from shield.transport import Transport

PermitT = TypeVar("PermitT")
OverT = TypeVar("OverT")
RefusalT = TypeVar("RefusalT")
Ticket = Any
"""A place in a wait queue, as `line_up` returns it."""


class EngineApi(Protocol[PermitT, OverT, RefusalT]):
    """Decides, counts, lets wait; `shield.verdict.Engine` is it with the verdicts of Shield."""

    # --- a verdict comes to its end: what `Permit` and `OverLimit` ask themselves

    answers: deque[Any]
    """Permits answered as delivered, not yet picked up."""

    @property
    def lines(self) -> object:
        """The wait queues; false while nobody waits."""

    def catch_up(self) -> None:
        """Pick up the answers, and wake those whom they let in."""

    def settle(self, permit: PermitT, outcome: Any, end: End | None) -> bool:
        """Release what a permit holds and count its end; False where it had one."""

    def cancel(self, permit: PermitT) -> bool:
        """Undo what a permit was charged; it counts as failed."""

    def expired(self, permit: PermitT) -> bool:
        """Undo what a permit was charged; it counts as dropped."""

    def end(self, over: OverT, end: End | None) -> bool:
        """Close an over-limit message and count its end; False where it had one."""

    def keep(self, overs: Sequence[OverT], where: End) -> list[bool]:
        """Count over-limit messages as kept there; False for each that has had its end."""

    def waited(self, permit: Any, waited_s: float, now: float) -> RefusalT | None:
        """Return the refusal of a message that waits in a queue of Shield's own, or None."""

    def refuse(self, permit: PermitT, refusal: RefusalT) -> OverT | None:
        """Turn a permit whose send never began into a verdict over the limit."""

    # --- messages over the limit wait for their turn

    def line_up(self, over: OverT, wake: Callable[[], None]) -> Ticket:
        """Give it a place behind all who wait for the same."""

    def line_up_behind(self, over: OverT, wake: Callable[[], None]) -> Ticket:
        """Give it a place behind all others, also those who come later."""

    def ask_again(self, waiter: Ticket, now: float | None = None) -> PermitT | float:
        """Return a Permit where its turn has come, else after how many seconds to ask again."""

    def ask_and_stay(self, waiter: Ticket, now: float | None = None) -> PermitT | float:
        """Do the same, but keep its place until it leaves, or moves on."""

    def ask_once(self, over: OverT) -> PermitT | None:
        """Return a Permit where the policies admit it now, behind all who wait."""

    def let_through(self, over: OverT) -> PermitT | None:
        """Admit it all the same, and charge it."""

    def leave(self, waiter: Ticket) -> None:
        """Give the place up."""

    def draw(self) -> int:
        """Return the number of a message that joins a queue."""

    def move_on(self, waiter: Ticket, over: OverT, number: float) -> None:
        """Let a place stand for the next message of its queue."""

    def competes_for(self, over: OverT) -> Hashable:
        """Return what it waits for: those that agree in it can wait one behind another."""

    def bond(self, over: OverT) -> Hashable:
        """Return what binds it to others, which it must not overtake; None for nothing."""

    def eased(self, over: OverT, mark: float) -> bool:
        """Tell whether the pressure of the policy that refuses it is down to that mark."""

    # --- what chains, actions and redrives need beside

    @property
    def clock(self) -> Clock:
        """Tells the time by which all is decided."""

    @property
    def settings(self) -> Any:
        """What a `shield.toml` holds (`shield.config.settings.ShieldSettings`)."""

    @property
    def registry(self) -> Any:
        """The plugins (`shield.config.registry.Registry`)."""

    @property
    def rules(self) -> tuple[Any, ...]:
        """The compiled rules, in file order."""

    @property
    def signer(self) -> Signer | None:
        """What signs the headers of what is diverted; None without a `signing_key`."""

    @property
    def retries(self) -> RetryBudget:
        """How many messages may be retried now."""

    def admit(self, message: Message, now: float | None = None) -> PermitT | OverT:
        """Offer a message to the rules."""

    def receive(self, delivery: Any, now: float | None = None) -> PermitT | OverT:
        """Offer a delivery to the rules of consumers."""

    def readmit(self, message: Message, where: End) -> PermitT | OverT:
        """Offer a message again that is counted as kept there."""

    def newest_first(self, permit: Any, now: float) -> bool:
        """Tell whether those that came last are to leave their queue first."""

    def leaves(self, permit: PermitT, waited_s: float, now: float) -> None:
        """Hear that a message leaves its queue."""

    def hold(self, over: OverT) -> bool:
        """Tell policies that a message is being diverted; False where it was already."""

    def unhold(self, over: OverT) -> None:
        """Tell policies that it is not diverted after all."""

    def parked(self, message: Message) -> None:
        """Tell policies that a message stays diverted for good."""

    def found(self, message: Message, where: End, messages: int = 1, holds: bool = True) -> None:
        """Count messages that an earlier process left there, as offered and kept."""

    def hands_on(
        self,
        client: Transport,
        give_up: Callable[[Exception], None],
        limit_s: float | None = None,
    ) -> int:
        """Note that somebody has a message and is to answer for it; return its number."""

    def heard_of(self, number: int) -> None:
        """Note that it was answered for."""

    def interrupted(self, error: BaseException) -> None:
        """Hear that an exception has cut short who had a verdict."""

    def count(self, account: Account, end: End, messages: int) -> None:
        """Count the end of messages whose verdicts were closed with their ends left open."""

    def plugin_failed(self, who: object, error: Exception) -> None:
        """Count and log what a plugin raised."""

    def transport_failed(self, transport: Transport, error: Exception) -> None:
        """Log that a send through a transport has failed."""

    def report(self, kind: Kind, message: Message, detail: str | None = None) -> None:
        """Tell observers of what was done with a message that was diverted."""
