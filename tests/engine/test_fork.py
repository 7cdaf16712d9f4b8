"""Processes: a forked child starts afresh, whatever its parent was in the middle of."""

from __future__ import annotations

import subprocess
import sys
import textwrap

PRELUDE = """
import json, logging, os, sys, threading
import shield
from shield import Message, Outcome, Permit, Shield

logging.getLogger("shield").setLevel(logging.ERROR)  # that a rule refuses is no news here

RULES = {"rules": [
    {"name": "quota", "match": "*", "quota": {"rate": "3/h", "burst": 3}},
    {"name": "bound", "match": "*", "in_flight": {"messages": 2},
     "over_limit": [{"overflow": {"destination": "x", "messages": 1}}]},
]}

def admits(one):
    return isinstance(one.admit(Message("orders", 10, "p")), Permit)

def in_child(work):
    "Run it in a forked child; return what it returns. A child that hangs is an error."
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = json.dumps(work())
        except BaseException as error:
            answer = json.dumps(repr(error))
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(child, 0)
    return answer
"""


def run(script: str) -> str:
    """Run a script in a process of its own; return what it prints."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::DeprecationWarning",
            "-c",
            PRELUDE + textwrap.dedent(script),
        ],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def test_a_child_has_an_empty_ledger_and_the_parent_keeps_its_own():
    """What was under way belongs to the parent, which settles it."""
    out = run("""
        one = Shield(RULES)
        permit = one.admit(Message("orders", 10, "p"))
        def work():
            before = shield.ledger().offered, one.ledger().offered, one.ledger().in_flight
            admits(one)
            permit.settle(Outcome.DELIVERED)
            permit.delivered()
            ledger = one.ledger()
            return [before, ledger.offered, ledger.delivered, ledger.in_flight, ledger.balanced]
        print(in_child(work))
        ledger = one.ledger()
        print(ledger.offered, ledger.in_flight, permit.settle(Outcome.DELIVERED))
        print(one.ledger().delivered, shield.ledger().delivered)
    """)
    assert out.splitlines() == ["[[0, 0, 0], 1, 0, 1, True]", "1 1 True", "1 1"]


def test_a_child_has_nothing_in_flight_and_the_quotas_as_they_stood():
    """Two of three an hour were used and both places taken: the child has one, and two places."""
    out = run("""
        one = Shield(RULES)
        held = [one.admit(Message("orders", 10, "p")) for _ in range(2)]
        print(admits(one))
        print(in_child(lambda: [admits(one), one.admit(Message("orders", 10, "p")).rule.name]))
        print(in_child(lambda: [admits(one), one.admit(Message("orders", 10, "p")).rule.name]))
        held[0].delivered()
        print(admits(one))
    """)
    assert out.splitlines() == ["False", "[True, 'quota']", "[True, 'quota']", "True"]


def test_a_childs_locks_are_free_whoever_held_them_at_the_fork():
    """Another thread was deciding, one was waiting in line, one was making the shared Shield."""
    out = run("""
        import shield.shield
        one = Shield(RULES)
        one.admit(Message("orders", 10, "p")); one.admit(Message("orders", 10, "p"))
        one.engine.line_up(one.admit(Message("orders", 10, "p")), print)
        overflow = one.rules[1].chain[0]
        held, done = threading.Event(), threading.Event()
        def hold():
            with one.engine._core.lock, shield.shield._default_lock, overflow._lock:
                held.set()
                done.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        def work():
            admitted = admits(one)
            shield.default()
            over = one.admit(Message("orders", 10, "q")) and one.admit(Message("orders", 10, "q"))
            step = over.rule.chain[0].step(over) if over.rule.chain else None
            return [admitted, bool(one.engine.lines), type(step).__name__, one.ledger().balanced]
        print(in_child(work))
        done.set()
        thread.join()
    """)
    assert out == "[True, False, 'Divert', True]"


def test_a_child_of_a_child_starts_afresh_as_well():
    """However often."""
    out = run("""
        one = Shield(RULES)
        admits(one)
        def grandchild():
            admits(one)
            return [one.ledger().offered, shield.ledger().offered]
        def child():
            admits(one)
            return in_child(grandchild)
        print(in_child(child), one.ledger().offered)
    """)
    assert out == "[1, 1] 1"


def test_what_a_dead_shield_counted_is_the_parents_alone():
    """The child's ledger of the process starts at nought, too."""
    out = run("""
        import gc
        one = Shield(RULES)
        admits(one)
        del one
        gc.collect()
        print(shield.ledger().offered, in_child(lambda: shield.ledger().offered))
    """)
    assert out == "1 0"


def test_with_spawn_every_process_loads_its_own(tmp_path):
    """A spawned worker has the same rules, and quotas and books of its own."""
    (tmp_path / "shield.toml").write_text(
        '[[rules]]\nmatch = "*"\nquota = { rate = "1/h", burst = 1 }\n'
    )
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
            import multiprocessing
            import shield
            from shield import Message, Permit

            def work(_):
                one = shield.default()
                got = [isinstance(one.admit(Message("a", 1, "p")), Permit) for _ in range(2)]
                return got, shield.ledger().offered

            if __name__ == "__main__":
                print(work(0))
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(*pool.map(work, [0]))
                    pool.close()
                    pool.join()
        """)
    )
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.stdout.splitlines() == ["([True, False], 2)"] * 2, done.stderr


def test_a_process_ends_without_a_word():
    """Shields that are left over at exit, with answers nobody has looked at, make no noise."""
    assert (
        run("""
            one, other = shield.default(), Shield(RULES)
            for each in (one, other):
                each.admit(Message("orders", 10, "p")).delivered()
                each.admit(Message("orders", 10, "p"))
            shield.kept = other
        """)
        == ""
    )


def test_what_overflowed_comes_back_on_a_thread_of_the_childs_own():
    """The parent's thread, and what it reads through, stay with the parent."""
    out = run("""
        import logging
        from shield.testing import FakeClient

        logging.disable()  # the fake client's overflow destination cannot be read back
        rule = {"match": "*", "quota": "1/h", "over_limit": "overflow x", "redrive": "auto"}
        one = Shield({"rules": [rule]})

        def threads():
            return [thread.name for thread in threading.enumerate()].count("shield-redrive")

        def work():
            before = threads()
            client = FakeClient(one)
            during = threads()
            client.close(None)
            return before, during

        client = FakeClient(one)
        print(*in_child(work), threads())
        client.close(None)
    """)
    assert out == "0 1 1"


def test_a_childs_buffer_is_empty_and_its_own():
    """What the parent keeps, the parent sends; the child's messages are drained in the child."""
    out = run("""
        from shield.testing import FakeClient
        rule = {"match": "*", "quota": {"rate": "20/s", "burst": 1}, "over_limit": "buffer"}
        one = Shield({"rules": [rule]})
        client = FakeClient(one)
        kept = [client.publish("orders", b"parent") for _ in range(20)]
        def work():
            before = one.ledger().buffered
            mine = FakeClient(one, "child")
            mine.publish("orders", b"child")
            future = mine.publish("orders", b"child")
            while not mine.unanswered[1:]:
                pass
            mine.ack()
            return [before, future.result(0).body.decode(), one.ledger().delivered]
        print(in_child(work))
        one.engine.flush(client.transport, 10)
        client.ack()
        print(sum(future.done() for future in kept), one.ledger().delivered)
    """)
    assert out.splitlines() == ["[0, 'child', 2]", "20 20"]


def test_a_policy_that_fails_to_inherit_leaves_the_child_its_others():
    """The child admits as it should, and the one that failed is named."""
    said = run("""
        from shield import Policy, capabilities, hookimpl

        class Nasty(Policy, capabilities.CarriesOver):
            def check(self, message, now):
                return None

            def carry_over(self, old):
                raise RuntimeError("broken")

        class Plugin:
            @hookimpl
            def shield_policies(self):
                return {"nasty": Nasty}

        logging.disable()
        rule = {"name": "r", "match": "*", "nasty": {}, "quota": {"rate": "2/h", "burst": 2}}
        one = Shield({"rules": [rule]}, plugins=[Plugin()])
        assert admits(one)
        print(in_child(lambda: [[admits(one) for _ in range(2)], list(one.plugin_errors)]))
    """)
    assert said == "[[True, False], ['r.nasty']]"
