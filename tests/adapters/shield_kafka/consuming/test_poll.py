"""What a consumer's user gets, and where its positions are meanwhile; no broker, no waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.structs import OffsetAndMetadata, TopicPartition

from shield import Reject, hookimpl
from shield.chain.deferred import ANEW_S
from shield_kafka.consuming.partition import UNSURE_S
from tests.adapters.shield_kafka.consuming.fetching import Fetching, State
from tests.making import counts, shield_with

TEN = {"rate": "10/s", "burst": 10}
NOW_S = 1_700_000_000.0
OLD_MS, YOUNG_MS = int(NOW_S - 60) * 1000, int(NOW_S) * 1000


def rule(**more):
    return {"name": "in", "match": "*", "direction": "consume", **more}


def aging(old, *partitions, **more) -> Fetching:
    """Records that are too old where `old(offset)` says so."""
    shield = shield_with(rule(max_age="30s", **more))
    for policy in shield.rules[0].policies:
        policy.wall = lambda: NOW_S
    written = lambda offset: OLD_MS if old(offset) else YOUNG_MS  # noqa: E731
    return Fetching(shield, *partitions, written=written)


# --- handing over -----------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [[], [rule(quota="1000000/s")]], ids=["no rule", "wide rule"])
def test_what_is_admitted_is_handed_over_as_it_was_fetched(rules):
    """Positions are the client's, and nothing is paused or kept."""
    fetching = Fetching(shield_with(*rules), 0, 1)
    assert fetching.poll() == {0: list(range(10)), 1: list(range(10))}
    assert not fetching.hand_over.waits
    assert (fetching.position(0), fetching.position(1)) == (10, 10)
    assert counts(fetching.shield.ledger()) == {"offered": 20, "in_flight": 20}


def test_what_is_over_the_limit_waits_in_order_and_the_position_with_it():
    """A commit would cover what was handed over, and no more."""
    fetching = Fetching(shield_with(rule(quota=TEN)))
    fetching.fetch = 25
    assert fetching.poll() == {0: list(range(10))}
    assert fetching.position() == 10
    assert counts(fetching.shield.ledger()) == {"offered": 11, "in_flight": 11}
    assert fetching.poll() == {}
    fetching.shield.clock.advance(0.5)
    assert fetching.poll() == {0: list(range(10, 15))}
    assert fetching.position() == 15
    fetching.shield.clock.advance(1.0)
    assert fetching.poll() == {0: list(range(15, 25))}
    assert fetching.position() == 25
    assert not fetching.hand_over.waits


def test_a_partition_that_waits_is_paused_only_while_the_client_polls():
    """So the user never sees it, and a rebalance leaves no pause behind."""
    fetching = Fetching(shield_with(rule(match="t", quota=TEN)), 0, 1)
    for _ in range(3):
        fetching.poll()
    assert fetching.paused_meanwhile == {0, 1}
    assert not any(state.paused for state in fetching.states.values())
    assert fetching.hand_over.paused == set()


def test_it_says_when_to_ask_again():
    """When the quota has room; never, while nothing waits."""
    fetching = Fetching(shield_with(rule(quota=TEN)))
    fetching.fetch = 15
    assert fetching.hand_over.wait_s() == float("inf")
    fetching.poll()
    assert fetching.hand_over.wait_s() == pytest.approx(0.1, abs=0.01)


def test_more_than_was_asked_for_waits():
    """`max_records` holds for what has waited and what was fetched together."""
    fetching = Fetching(shield_with(rule(quota=TEN)), 0, 1)
    fetching.poll()
    fetching.shield.clock.advance(10)
    assert fetching.poll(3) == {1: [0, 1, 2]}
    assert fetching.poll(3) == {1: [3, 4, 5]}
    assert fetching.hand_over.wait_s() == 0.0
    fetching.poll()
    assert fetching.handed[1][:10] == list(range(10))


def test_a_bound_lets_the_partition_go_on_when_it_is_half_empty():
    """Paused at twice the mark at which it goes on: not for every record."""
    fetching = Fetching(shield_with(rule(in_flight={"messages": 10})))
    fetching.fetch = 30
    assert fetching.poll() == {0: list(range(10))}
    place = TopicPartition("t", 0)
    for committed in range(1, 5):
        fetching.hand_over.committed({place: OffsetAndMetadata(committed, "", -1)})
        assert fetching.poll() == {}
    fetching.hand_over.committed({place: OffsetAndMetadata(5, "", -1)})
    assert fetching.poll() == {0: list(range(10, 15))}


def test_a_bound_that_does_not_become_half_empty_lets_it_go_on_after_a_second():
    """Its user may wait for more before he commits."""
    fetching = Fetching(shield_with(rule(in_flight={"messages": 10})))
    fetching.fetch = 30
    fetching.poll()
    place = TopicPartition("t", 0)
    fetching.hand_over.committed({place: OffsetAndMetadata(2, "", -1)})
    assert fetching.poll() == {}
    fetching.shield.clock.advance(ANEW_S)
    assert fetching.poll() == {0: [10, 11]}


def test_where_a_bound_holds_records_the_automatic_commit_is_due_at_once():
    """Its interval is five seconds; asked for once, until it is answered or a moment has passed."""
    fetching = Fetching(shield_with(rule(in_flight={"messages": 10})))
    fetching.poll()
    assert not fetching.hand_over.commit_is_due()
    fetching.poll()
    assert fetching.hand_over.commit_is_due()
    assert not fetching.hand_over.commit_is_due()
    fetching.commit()
    assert fetching.poll() == {0: list(range(10, 20))}


@pytest.mark.parametrize("committed", range(11))
def test_a_commit_settles_what_is_below_it_and_no_more(committed):
    """Of a run of ten, each record when its own offset is passed: not one sooner, or later."""
    fetching = Fetching(shield_with(rule(in_flight={"messages": 10})))
    fetching.poll()
    upto = OffsetAndMetadata(committed, "", -1)
    fetching.hand_over.committed({TopicPartition("t", 0): upto})
    ledger = fetching.shield.ledger()
    assert (ledger.delivered, ledger.in_flight) == (committed, 10 - committed)


def test_without_a_group_what_was_handed_over_is_done_at_the_next_poll():
    """Nobody commits it."""
    fetching = Fetching(shield_with(rule(in_flight={"messages": 10})), commits=False)
    for polls in range(1, 4):
        assert fetching.poll() == {0: list(range(10 * polls - 10, 10 * polls))}
    assert counts(fetching.shield.ledger()) == {"offered": 30, "delivered": 20, "in_flight": 10}


def test_records_that_policies_tell_apart_are_decided_on_one_by_one():
    """Here each has the same key, so that they share its quota."""
    fetching = Fetching(shield_with(rule(quota={"rate": "4/s", "per": "key"})))
    assert fetching.poll() == {0: [0, 1, 2, 3]}
    fetching.shield.clock.advance(0.25)
    assert fetching.poll() == {0: [4]}


def test_a_rule_in_shadow_hands_over_everything_and_counts_what_it_would_hold_back():
    """Each of those is decided on by itself, so that it can be counted."""
    fetching = Fetching(shield_with(rule(quota=TEN, mode="shadow", over_limit="drop")))
    fetching.fetch = 15
    assert fetching.poll() == {0: list(range(15))}
    ledger = fetching.shield.ledger()
    assert counts(ledger) == {"offered": 15, "in_flight": 15}
    assert sum(ledger.over_limit.values()) == 5


def test_a_rule_tells_its_pressure():
    """Of what is handed over and not committed."""
    fetching = Fetching(shield_with(rule(in_flight={"messages": 20})))
    fetching.poll()
    assert fetching.shield.pressure("in") == 0.5
    fetching.commit()
    assert fetching.shield.pressure("in") == 0.0


# --- dropped, and sent elsewhere --------------------------------------------------------------


def test_what_a_rule_drops_is_passed():
    """Counted, and the position is behind it."""
    fetching = aging(lambda offset: offset < 7, over_limit="drop")
    assert fetching.poll() == {0: [7, 8, 9]}
    assert fetching.position() == 10
    assert counts(fetching.shield.ledger()) == {"offered": 10, "dropped": 7, "in_flight": 3}


def test_what_a_hook_refuses_is_passed():
    """Counted as dropped."""

    class Odd:
        @hookimpl
        def shield_before_consume(self, message):
            if message.key == b"k" and message.size == 10:
                raise Reject("no")

    fetching = Fetching(shield_with(rule(), plugins=[Odd()]))
    assert fetching.poll() == {}
    assert fetching.position() == 10
    assert counts(fetching.shield.ledger()) == {"offered": 10, "dropped": 10}


def test_what_goes_elsewhere_is_passed_only_when_that_is_confirmed():
    """All that follow each other are under way at once; what is behind them waits."""
    fetching = aging(lambda offset: offset < 4, over_limit="overflow late")
    assert fetching.poll() == {}
    assert fetching.sends.offsets == [0, 1, 2, 3]
    assert fetching.position() == 0
    assert fetching.hand_over.wait_s() == 0.01
    assert counts(fetching.shield.ledger()) == {"offered": 5, "in_flight": 5}
    fetching.sends.end()
    assert fetching.hand_over.wait_s() == 0.0
    assert fetching.poll() == {0: list(range(4, 10))}
    assert fetching.position() == 10
    assert counts(fetching.shield.ledger()) == {"offered": 10, "overflowed": 4, "in_flight": 6}


def test_a_send_that_fails_passes_nothing():
    """The chain goes on: here it begins anew after a second."""
    fetching = aging(lambda offset: offset == 2, over_limit="overflow late")
    assert fetching.poll() == {0: [0, 1]}
    fetching.sends.end(RuntimeError("no"))
    assert fetching.poll() == {}
    assert fetching.position() == 2
    fetching.shield.clock.advance(ANEW_S + 0.1)
    fetching.poll()
    assert fetching.sends.offsets == [2, 2]
    fetching.sends.end()
    assert fetching.poll() == {0: list(range(3, 10))}


def test_a_send_that_fails_goes_on_in_its_chain_before_what_was_confirmed_behind_it():
    """Dropped, it is passed, and what was confirmed with it."""
    fetching = aging(lambda offset: offset < 3, over_limit=["overflow late", "drop"])
    fetching.poll()
    (_, first, done), *others = fetching.sends.sent
    for _, sending, answered in others:
        answered()
        sending.ended = True
    assert fetching.poll() == {}
    assert fetching.position() == 0
    done()
    first.error, first.ended = RuntimeError("no"), True
    assert fetching.poll() == {0: list(range(3, 10))}
    ledger = fetching.shield.ledger()
    assert (ledger.dropped, ledger.overflowed, ledger.in_flight) == (1, 2, 7)


def test_no_more_is_under_way_than_there_is_room_for():
    """The rest follows when that is answered."""
    fetching = aging(lambda offset: True, over_limit="overflow late")
    fetching.sends.most = 4
    fetching.poll()
    assert fetching.sends.offsets == [0, 1, 2, 3]
    fetching.sends.end()
    fetching.poll()
    assert fetching.sends.offsets == list(range(8))
    assert fetching.position() == 4


def test_at_the_end_what_has_arrived_elsewhere_is_passed():
    """So that the last commit covers it; what has not is left to others."""
    fetching = aging(lambda offset: True, over_limit="overflow late")
    fetching.poll()
    for _, sending, done in fetching.sends.sent[:3]:
        done()
        sending.ended = True
    fetching.hand_over.end_sending(deadline=0.0)
    assert fetching.position() == 3
    fetching.hand_over.close()
    assert counts(fetching.shield.ledger()) == {"offered": 10, "overflowed": 3, "failed": 7}


# --- what else may happen to a partition ------------------------------------------------------


def test_after_a_seek_what_waited_is_forgotten():
    """It is fetched from there; what was over the limit has failed, uncharged."""
    fetching = Fetching(shield_with(rule(quota=TEN)))
    fetching.fetch = 15
    fetching.poll()
    fetching.seek(100)
    fetching.shield.clock.advance(1.0)
    assert fetching.poll() == {0: list(range(100, 110))}
    assert fetching.shield.ledger().failed == 1


def test_a_partition_that_is_taken_away_takes_all_with_it():
    """What was handed over and not committed, and what waits, has failed: others get it."""
    fetching = Fetching(shield_with(rule(quota=TEN)), 0, 1)
    fetching.poll()
    del fetching.states[TopicPartition("t", 0)]
    fetching.poll()
    assert counts(fetching.shield.ledger()) == {"offered": 11, "failed": 10, "in_flight": 1}


def test_a_partition_that_was_away_begins_anew():
    """Its state is another one: what waited is from before, and is not handed over."""
    fetching = Fetching(shield_with(rule(quota=TEN)))
    fetching.fetch = 15
    fetching.poll()
    fetching.states[TopicPartition("t", 0)] = State(3)
    fetching.shield.clock.advance(10.0)
    assert fetching.poll() == {0: list(range(3, 13))}


def test_a_seek_during_the_clients_poll_is_seen():
    """As from a rebalance listener."""
    fetching = Fetching(shield_with(rule(quota=TEN)))
    fetching.fetch = 15
    fetching.poll()
    fetching.shield.clock.advance(1.0)
    fetching.hand_over.begin()
    with fetching.hand_over.pausing():
        fetching.seek(0)
    assert fetching.hand_over.hand_over({}, 500, update_offsets=True) == {}
    assert fetching.poll() == {0: list(range(10))}


def test_what_the_user_has_paused_is_not_handed_over_and_stays_paused():
    """Though it was fetched before, and the limit would admit it."""
    fetching = Fetching(shield_with(rule(quota=TEN)))
    fetching.fetch = 15
    fetching.poll()
    fetching.state().paused = True
    fetching.shield.clock.advance(10.0)
    assert fetching.poll() == {}
    assert fetching.state().paused
    fetching.state().paused = False
    assert fetching.poll() == {0: list(range(10, 15))}


def test_what_waits_while_the_client_is_unsure_of_a_position_is_asked_about_soon(monkeypatch):
    """As after a change of leader: a poll without end would otherwise never come back to it."""
    fetching = Fetching(shield_with(rule(quota=TEN)))
    fetching.fetch = 15
    fetching.poll()
    monkeypatch.setattr(fetching.state(), "is_fetchable", lambda: False)
    fetching.shield.clock.advance(10.0)
    assert fetching.poll() == {}
    assert fetching.hand_over.wait_s() == UNSURE_S
    monkeypatch.undo()
    assert fetching.poll() == {0: list(range(10, 15))}
    fetching.state().paused = True
    assert fetching.hand_over.wait_s() == float("inf")


def test_what_the_user_pauses_while_it_is_paused_for_the_poll_stays_paused():
    """He does so in a rebalance listener, and it is then his."""
    fetching = Fetching(shield_with(rule(quota=TEN)))
    fetching.fetch = 15
    fetching.poll()
    with fetching.hand_over.pausing():
        assert fetching.hand_over.paused == {TopicPartition("t", 0)}
        fetching.hand_over.paused.discard(TopicPartition("t", 0))
    assert fetching.state().paused


def interrupt(monkeypatch, fetching, **how):
    """Poll, and be interrupted in the middle of it."""

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching.sends, "send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetching.poll(**how)


@pytest.mark.parametrize("update_offsets", [True, False])
def test_an_interrupt_on_the_way_loses_nothing(monkeypatch, update_offsets):
    """The user gets it instead of records, and these are fetched again."""
    fetching = aging(lambda offset: offset == 14, 0, 1, over_limit="overflow late")
    fetching.poll()
    interrupt(monkeypatch, fetching, update_offsets=update_offsets)
    assert (fetching.position(0), fetching.position(1)) == (10, 10)
    assert fetching.shield.ledger().in_flight == 20
    assert fetching.poll() == {0: [10, 11, 12, 13], 1: [10, 11, 12, 13]}


def test_an_interrupt_while_records_wait_loses_none_of_them(monkeypatch):
    """They are fetched again as well."""
    fetching = aging(lambda offset: offset == 14, 0, 1, over_limit="overflow late")
    for _ in range(2):
        fetching.poll()
    fetching.sends.end(RuntimeError("no"))
    fetching.poll()
    fetching.shield.clock.advance(ANEW_S + 0.1)
    interrupt(monkeypatch, fetching)
    assert (fetching.position(0), fetching.position(1)) == (14, 14)
    assert not fetching.hand_over.waits
    assert fetching.shield.ledger().in_flight == 28
    fetching.poll()
    fetching.sends.end()
    assert fetching.poll() == {0: list(range(15, 24)), 1: list(range(15, 24))}


# --- iteration ----------------------------------------------------------------------------------


def test_while_the_user_iterates_the_client_moves_the_position():
    """From record to record; what waits is behind them."""
    fetching = Fetching(shield_with(rule(quota=TEN)))
    fetching.fetch = 15
    found = fetching.poll(update_offsets=False)
    assert found == {0: list(range(10))}
    assert fetching.position() == 0
    fetching.iterate(found)
    fetching.shield.clock.advance(1.0)
    assert fetching.poll(update_offsets=False) == {0: list(range(10, 15))}


def test_what_was_dropped_behind_the_last_is_passed_when_that_was_reached():
    """Not before: a commit would cover the ones that the user has not come to."""
    fetching = aging(lambda offset: offset > 5, over_limit="drop")
    found = fetching.poll(update_offsets=False)
    assert found == {0: list(range(6))}
    assert fetching.position() == 0
    fetching.iterate(found)
    assert fetching.position() == 6
    fetching.hand_over.begin()
    assert fetching.position() == 10
    assert not fetching.hand_over.waits


@pytest.mark.parametrize("reached", [0, 3])
def test_an_iteration_that_is_broken_off_gives_back_what_was_not_reached(reached):
    """It is fetched and offered again; the quota has not been spent on it."""
    fetching = Fetching(shield_with(rule(quota=TEN)))
    fetching.iterate(fetching.poll(update_offsets=False), reached)
    fetching.seek(reached)
    assert counts(fetching.shield.ledger()) == {
        key: number
        for key, number in {"offered": 10, "in_flight": reached, "failed": 10 - reached}.items()
        if number
    }
    assert fetching.poll() == {0: list(range(reached, 10))}


# --- all of it ----------------------------------------------------------------------------------

ACTIONS = st.one_of(
    st.tuples(st.just("poll"), st.integers(1, 40)),
    st.tuples(st.just("iterate"), st.integers(0, 40)),
    st.tuples(st.just("advance"), st.floats(0.0, 3.0)),
    st.tuples(st.just("commit"), st.integers(0, 1)),
    st.tuples(st.just("confirm"), st.just(0)),
    st.tuples(st.just("fail"), st.just(0)),
    st.tuples(st.just("pause"), st.integers(0, 1)),
    st.tuples(st.just("move"), st.integers(0, 1)),
)
OVER_LIMIT = st.sampled_from(
    [["overflow late"], ["wait 1s", "overflow late"], ["wait 200ms", "drop"], ["wait", "drop"]]
)


BOUNDS = st.sampled_from([{}, {"queue_delay": {"target": "200ms", "interval": "1s"}}])


@given(st.lists(ACTIONS, max_size=40), OVER_LIMIT, BOUNDS)
def test_whatever_happens_nothing_is_skipped_and_nothing_is_out_of_order(actions, chain, bound):
    """Below a position all was handed over, dropped, or confirmed elsewhere; the books balance."""
    fetching = aging(
        lambda offset: offset % 11 < 3,
        *(0, 1),
        quota={"rate": "20/s", "burst": 20},
        in_flight={"messages": 30},
        over_limit=chain,
        **bound,
    )
    begun = {0: 0, 1: 0}
    for action, number in actions:
        if action == "poll":
            fetching.poll(number)
        elif action == "iterate":
            fetching.iterate(fetching.poll(20, update_offsets=False), number)
        elif action == "advance":
            fetching.shield.clock.advance(number)
        elif action == "commit":
            fetching.commit(number)
        elif action in ("confirm", "fail"):
            fetching.sends.end(None if action == "confirm" else RuntimeError("no"))
        elif action == "pause":
            fetching.state(number).paused = not fetching.state(number).paused
        else:  # the partition goes to another member and comes back, where it is committed
            place = TopicPartition("t", number)
            position = fetching.position(number)
            fetching.states[place] = State(position)
            fetching.handed[number] = []
            begun[number] = position
        for place, state in fetching.states.items():
            offsets = fetching.handed[place.partition]
            assert offsets == sorted(set(offsets))
            confirmed = {
                record.offset
                for record, sending, _ in fetching.sends.sent
                if record.partition == place.partition and sending.ended and not sending.error
            }
            if "drop" not in chain:
                below = range(begun[place.partition], state.position.offset)
                assert set(below) <= set(offsets) | confirmed
        assert fetching.shield.ledger().balanced
    fetching.hand_over.close()
    assert fetching.shield.ledger().in_flight == 0
