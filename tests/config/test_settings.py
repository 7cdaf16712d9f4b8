"""Settings: where they come from, and one clear line for each thing that is wrong in them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from shield import SettingsError, Shield, ShieldError
from shield.config.settings import load_settings
from shield.settings_model import RENAMED

RATE = 'allowed is a number above 0 with its unit, as "500/s", "90/m", "5MiB/s" (/s /m /h /d)'
SIZE = 'allowed is a whole number of bytes or a text as "64MiB" (B KiB MiB GiB TiB KB MB GB)'
TIME = 'allowed is a time above 0 with its unit, as "200ms", "1.5s", "2m" (ms s m h d)'
ACTIONS = "allowed: buffer, drop, overflow, raise, retry, spool, wait"
TOP = (
    "answer_within, credentials, mode, on_plugin_error, plugins, producer, redrive_allow, "
    "redrive_attempts, redrive_park, rules"
)
IN_RULE = (
    "adaptive, backlog, blocked, broker_throttle, client_queue, client_queue_age, "
    "confirm_latency, confirm_window, direction, except, in_flight, match, max_age, mode, nacks, "
    "name, order, over_limit, probabilistic_throttle, producers, queue_delay, quota, redrive, "
    "requests_in_flight, returns, shed"
)
RULE = '[[rules]]\nmatch = "orders"\n'


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def problems(load) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert all("\n" not in line for line in caught.value.problems)
    return caught.value.problems


# --- what is wrong in a file ------------------------------------------------------------------

WRONG = {
    "an unknown table": (
        '[sheild]\nmode = "off"\n',
        f"sheild: unknown key; did you mean 'shield'? allowed: {TOP}, shield, signing_key, "
        "spool_dir",
    ),
    "an unknown key of the process": (
        '[shield]\nmoed = "off"\n',
        f"shield.moed: unknown key; did you mean 'mode'? allowed: {TOP}, signing_key, spool_dir",
    ),
    "an unknown key of a rule": (
        RULE + 'quotas = "5/s"\n',
        f"rules[0].quotas: unknown key; did you mean 'quota'? allowed: {IN_RULE}",
    ),
    "an unknown key of a policy": (
        RULE + 'quota = { rate = "5/s", brust = 3 }\n',
        "rules[0].quota[0].brust: unknown key; did you mean 'burst'? "
        "allowed: burst, max_keys, per, rate",
    ),
    "an unknown key of an action": (
        RULE + 'over_limit = [{ overflow = { destination = "x", mesages = 5 } }]\n',
        "rules[0].over_limit[0]: found {'overflow': {'destination': 'x', 'mesages': 5}}; overflow: "
        "mesages: unknown key; did you mean 'messages'? allowed: "
        "bytes, declare, destination, messages",
    ),
    "an unknown key of the plugins": (
        "[plugins]\ndisabel = []\n",
        "plugins.disabel: unknown key; did you mean 'disable'? allowed: disable",
    ),
    "a rate without a unit": (
        RULE + 'quota = { rate = "500" }\n',
        f"rules[0].quota[0].rate: found '500'; a rate needs a unit; {RATE}",
    ),
    "a rate that is a number": (
        RULE + "quota = 500\n",
        f"rules[0].quota[0].rate: found 500; a rate needs a unit; {RATE}",
    ),
    "a negative rate": (
        RULE + 'quota = [{ rate = "5/s" }, { rate = "-5/s" }]\n',
        f"rules[0].quota[1].rate: found '-5/s'; a rate is above 0; {RATE}",
    ),
    "a rate of nought": (
        RULE + 'quota = "0/s"\n',
        f"rules[0].quota[0].rate: found '0/s'; a rate is above 0; {RATE}",
    ),
    "a rate beyond numbers": (
        RULE + f'quota = "{"9" * 400}/s"\n',
        f"rules[0].quota[0].rate: found '{'9' * 56}...; a rate is finite; {RATE}",
    ),
    "a burst below one message": (
        RULE + 'quota = { rate = "5/s", burst = 0 }\n',
        "rules[0].quota[0].burst: found 0; allowed is 1 or more",
    ),
    "a burst below one byte": (
        RULE + 'quota = { rate = "5MiB/s", burst = "0.5B" }\n',
        "rules[0].quota[0].burst: found '0.5B'; allowed is 1 or more",
    ),
    "a burst that is no size": (
        RULE + 'quota = { rate = "5/s", burst = "many" }\n',
        "rules[0].quota[0].burst: found 'many'; 5/s counts messages; allowed is a whole number of "
        "messages",
    ),
    "a burst beyond numbers": (
        RULE + f'quota = {{ rate = "5/s", burst = "{"9" * 400}" }}\n',
        f"rules[0].quota[0].burst: found '{'9' * 56}...; not a size; {SIZE}",
    ),
    "an unknown key of a quota's level": (
        RULE + 'quota = { rate = "5/s", per = "prodcer" }\n',
        "rules[0].quota[0].per: found 'prodcer'; unknown key; did you mean 'producer'? "
        "allowed: destination, header, key, producer, tenant",
    ),
    "a header without its name": (
        RULE + 'quota = { rate = "5/s", per = "header" }\n',
        "rules[0].quota[0].per: found 'header'; "
        'allowed is a header\'s name behind the colon, as "header:tenant"',
    ),
    "a level with too much behind it": (
        RULE + 'quota = { rate = "5/s", per = "key:x" }\n',
        "rules[0].quota[0].per: found 'key:x'; nothing may stand behind its colon; found 'x'",
    ),
    "an empty match": (
        '[[rules]]\nmatch = ""\n',
        "rules[0].match: found ''; allowed is a text that is not empty",
    ),
    "no match": ('[[rules]]\nname = "a"\n', "rules[0].match: is missing and has no default"),
    "a match of another type": (
        "[[rules]]\nmatch = 5\n",
        "rules[0].match: found 5; allowed is a text",
    ),
    "an empty except": (
        RULE + 'except = ""\n',
        "rules[0].except: found ''; allowed is a text that is not empty",
    ),
    "an unknown action": (
        RULE + 'over_limit = ["wait 1s", "rise"]\n',
        f"rules[0].over_limit[1]: found 'rise'; unknown action 'rise'; did you mean 'raise'? "
        f"{ACTIONS}",
    ),
    "an action that is no text": (
        RULE + "over_limit = [5]\n",
        'rules[0].over_limit[0]: found 5; an action is a text as "wait 200ms", '
        f'or a table with one key as {{ wait = "200ms" }}; {ACTIONS}',
    ),
    "overflow to its own topic": (
        RULE + 'over_limit = ["overflow orders"]\n',
        "rules[0].over_limit[0]: found 'overflow orders'; that is the destination the rule is "
        "about; allowed is any other than 'orders'",
    ),
    "overflow to nowhere": (
        RULE + 'over_limit = ["overflow"]\n',
        "rules[0].over_limit[0]: found 'overflow'; overflow: destination is missing; "
        'allowed is "overflow DESTINATION"',
    ),
    "an overflow of nothing": (
        RULE + 'over_limit = [{ overflow = { destination = "x", messages = 0 } }]\n',
        "rules[0].over_limit[0]: found {'overflow': {'destination': 'x', 'messages': 0}}; "
        "overflow: messages: allowed is 1 or more",
    ),
    "a wait without its time": (
        RULE + 'over_limit = ["wait"]\n',
        "rules[0].over_limit[0]: found 'wait'; limit is missing; allowed is \"wait LIMIT\"",
    ),
    "a wait without a unit": (
        RULE + 'over_limit = "wait 5"\n',
        f"rules[0].over_limit[0]: found 'wait 5'; wait: limit: not a time; {TIME}",
    ),
    "something behind a drop": (
        RULE + 'over_limit = ["drop it"]\n',
        "rules[0].over_limit[0]: found 'drop it'; 'drop' takes nothing behind it; found 'it'",
    ),
    "a chain with something after raise": (
        RULE + 'over_limit = ["raise", "drop"]\n',
        "rules[0].over_limit: found ['raise', 'drop']; 'drop' stands after 'raise', "
        "which always ends a chain; allowed is 'raise' as the last one only",
    ),
    "a chain with something after drop": (
        RULE + 'over_limit = ["drop", "wait 1s"]\n',
        "rules[0].over_limit: found ['drop', 'wait 1s']; 'wait 1s' stands after 'drop', "
        "which always ends a chain; allowed is 'drop' as the last one only",
    ),
    "two rules of one name": (
        '[[rules]]\nname = "x"\nmatch = "a"\n[[rules]]\nname = "x"\nmatch = "b"\n',
        "rules[1].name: found 'x', another rule's name already; allowed is a name of its own",
    ),
    "a name that another rule has by its place": (
        '[[rules]]\nname = "rule-2"\nmatch = "a"\n[[rules]]\nmatch = "b"\n',
        "rules[1].name: found 'rule-2', another rule's name already; allowed is a name of its own",
    ),
    "an unknown mode": (
        '[shield]\nmode = "of"\n',
        "shield.mode: found 'of'; allowed is 'enforce', 'shadow' or 'off'",
    ),
    "an empty bound": (
        RULE + "in_flight = {}\n",
        "rules[0].in_flight[0]: found {}; allowed is messages, bytes, or both",
    ),
    "a bound of nothing": (
        RULE + "in_flight = { messages = 0 }\n",
        "rules[0].in_flight[0].messages: found 0; allowed is 1 or more",
    ),
    "rules that are one table": (
        '[rules]\nmatch = "a"\n',
        "rules: found {'match': 'a'}; allowed is a list",
    ),
    "a shield that is no table": ('shield = "x"\n', "shield: found 'x'; allowed is a table"),
    "an empty producer": (
        '[shield]\nproducer = ""\n',
        "shield.producer: found ''; allowed is a text that is not empty",
    ),
    "a burst of a rate in bytes that is no size": (
        RULE + 'quota = { rate = "5MiB/s", burst = "many" }\n',
        f"rules[0].quota[0].burst: found 'many'; not a size; {SIZE}",
    ),
    "a burst in bytes for a rate in messages": (
        RULE + 'quota = { rate = "5/s", burst = "10KB" }\n',
        "rules[0].quota[0].burst: found '10KB'; 5/s counts messages; allowed is a whole number of "
        "messages",
    ),
    "a true for a number": (
        RULE + "in_flight = { messages = true }\n",
        "rules[0].in_flight[0].messages: found true; allowed is a number",
    ),
    "a false for a number of the process": (
        "[shield]\nredrive_attempts = false\n",
        "shield.redrive_attempts: found False; allowed is a whole number",
    ),
    "an empty chain": (
        RULE + "over_limit = []\n",
        "rules[0].over_limit: found []; an empty chain; allowed is at least one action, and a rule "
        f"that has no chain at all raises; {ACTIONS}",
    ),
    "a spool nowhere": (
        '[shield]\nspool_dir = " "\n',
        "shield.spool_dir: found ' '; allowed is the path of a folder",
    ),
    "a port that there is not": (
        RULE + 'over_limit = ["overflow kafka://h:99999/t"]\n',
        "rules[0].over_limit[0]: found 'overflow kafka://h:99999/t'; overflow: its port is 99999; "
        "allowed is 1 to 65535",
    ),
    "a name with a blank": (
        RULE + 'over_limit = ["overflow late orders"]\n',
        "rules[0].over_limit[0]: found 'overflow late orders'; 'overflow' takes one name; found "
        "'late orders', which has blanks; allowed for a name with blanks is a table: "
        "{ overflow = { destination = ... } }",
    ),
    "a URL that lacks a slash": (
        RULE + 'over_limit = ["overflow amqp:/guest:secret@h/x"]\n',
        "rules[0].over_limit[0]: found 'overflow ***@h/x'; overflow: no name, and not a URL; "
        "allowed is scheme://[user:password@]host[:port][/path][?option=value]",
    ),
    "a number of thousands of digits": (
        f"a = {'9' * 5000}\n",
        "is not TOML: Exceeds the limit (4300 digits) for integer string conversion: value has "
        "5000 digits; use sys.set_int_max_str_digits() to increase the limit",
    ),
    "what is nested without end": (
        f"a = {'[' * 20000}\n",
        "is nested too deeply to be settings",
    ),
    "what is not TOML": (
        "[[rules]\n",
        "is not TOML: Expected ']]' at the end of an array declaration (at line 1, column 8)",
    ),
}


@pytest.mark.parametrize(("text", "line"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_one_clear_line(text, line):
    """It names the file and the key, what was found and what is allowed."""
    Path("shield.toml").write_text(text)
    assert problems(Shield.load) == (f"shield.toml: {line}",)


def test_all_that_is_wrong_is_told_at_once():
    """One line for each thing, in the order of the file's rules."""
    text = RULE + 'quota = "5"\nover_limit = ["rise"]\n[[rules]]\nmatch = ""\n'
    Path("shield.toml").write_text(text)
    lines = problems(Shield.load)
    assert len(lines) == 3
    assert {line.split(":")[1].strip() for line in lines} == {
        "rules[0].quota[0].rate",
        "rules[0].over_limit[0]",
        "rules[1].match",
    }


def test_all_unknown_tables_and_keys_are_told_at_once():
    """Not one by one."""
    Path("shield.toml").write_text("a = 1\nb = 2\n[shield]\nc = 3\n")
    assert [line.split(":")[1] for line in problems(Shield.load)] == [" shield.c", " a", " b"]


def test_a_named_file_that_is_missing_is_an_error():
    """A typing error must not mean no protection."""
    assert problems(lambda: Shield.load("no.toml")) == ("no.toml: there is no such file",)


def test_a_file_that_the_environment_names_must_be_there(monkeypatch):
    """`SHIELD_CONFIG` names a file as an argument does."""
    monkeypatch.setenv("SHIELD_CONFIG", "no.toml")
    assert problems(Shield.load) == ("no.toml: there is no such file",)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    """A directory, a lack of rights: the system's own words."""
    assert problems(lambda: Shield.load(tmp_path)) == (
        f"{tmp_path}: cannot be read: Is a directory",
    )

    def denied(*arguments, **keywords):
        raise PermissionError(13, "Permission denied")

    Path("shield.toml").write_text("")
    monkeypatch.setattr(os, "open", denied)
    assert problems(Shield.load) == ("shield.toml: cannot be read: Permission denied",)


def test_what_never_ends_is_not_read(tmp_path):
    """A pipe that nobody writes to, a device that is endless."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        line = f"{path}: is no ordinary file; allowed is a file that has an end"
        assert problems(lambda path=path: Shield.load(path)) == (line,)


def test_a_file_beyond_all_measure_is_not_read(tmp_path, monkeypatch):
    """No settings are that large."""
    monkeypatch.setattr("shield.config.settings.MOST_BYTES", 2 * 1024**2)
    Path("shield.toml").write_text("#" * (2 * 1024**2 + 1))
    assert problems(Shield.load) == ("shield.toml: is larger than allowed, 2 MiB",)


def test_a_file_that_is_no_text_is_an_error():
    """TOML is UTF-8."""
    Path("shield.toml").write_bytes(b"\xff\xfe")
    assert problems(Shield.load)[0].startswith("shield.toml: is not UTF-8 text: ")


# --- what is wrong in the environment ---------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("MODE", "of", "shield.mode: found 'of'; allowed is 'enforce', 'shadow' or 'off'"),
        ("PRODUCER", "", "shield.producer: found ''; allowed is a text that is not empty"),
        (
            "ON_PLUGIN_ERROR",
            "x",
            "shield.on_plugin_error: found 'x'; allowed is 'open' or 'closed'",
        ),
        ("RULES", "5", "rules: found 5; allowed is a list"),
        (
            "RULES",
            "[5]",
            "rules[0]: found 5; allowed is a table",
        ),
        ("RULES", "no json", "found 'no json'; allowed is JSON"),
        ("PLUGINS__DISABLE", "5", "plugins.disable: found 5; allowed is a list"),
        ("PLUGINS__DISABLE", "quota", "found 'quota'; allowed is JSON"),
        ("PLUGINS", "no json", "found 'no json'; allowed is JSON"),
        (
            "RULES",
            '[{"match": "a", "quota": "5"}]',
            f"rules[0].quota[0].rate: found '5'; a rate needs a unit; {RATE}",
        ),
    ],
)
@pytest.mark.parametrize("file", [None, RULE])
def test_a_wrong_variable_is_named(variable, value, line, file, monkeypatch):
    """Not the file, which may be right, or not there."""
    if file is not None:
        Path("shield.toml").write_text(file)
    monkeypatch.setenv(f"SHIELD_{variable}", value)
    assert problems(Shield.load) == (f"environment variable SHIELD_{variable}: {line}",)


def test_a_misspelt_variable_is_an_error(monkeypatch):
    """Else it would protect nobody."""
    monkeypatch.setenv("SHIELD_MOED", "off")
    monkeypatch.setenv("SHIELD_MODE__X", "off")
    first, second = problems(Shield.load)
    assert first == (
        "environment variable SHIELD_MODE__X: mode has no parts that a variable could set; "
        "allowed is SHIELD_MODE"
    )
    assert second.startswith(
        "environment variable SHIELD_MOED: no such setting; did you mean 'SHIELD_MODE'? allowed: "
        "SHIELD_ANSWER_WITHIN, SHIELD_CONFIG, SHIELD_CREDENTIALS, SHIELD_MODE, "
    )


@pytest.mark.parametrize(
    "name",
    ["SHIELD_SERVICE_HOST", "SHIELD_PORT", "SHIELD_PORT_80_TCP_ADDR", "SHIELD_API_SERVICE_PORT"],
)
def test_what_kubernetes_sets_for_a_service_is_no_setting(name, monkeypatch):
    """A service may be called shield."""
    monkeypatch.setenv(name, "tcp://10.0.0.1:80")
    assert Shield.load().settings.mode == "enforce"


def test_a_plugin_that_is_not_there_cannot_be_disabled():
    """The one that was meant would go on working."""
    (line,) = problems(lambda: Shield({"plugins": {"disable": ["quota", "qouta"]}}))
    assert line.startswith(
        "settings: plugins.disable[1]: found 'qouta', no plugin's name; did you mean 'quota'? "
    )


def test_names_are_compared_once_for_each_rule():
    """Ten thousand rules load in a moment; each asks whether its name is taken."""
    many = [{"name": f"r{n}", "match": f"orders.{n}"} for n in range(10_000)]
    own = Shield({"rules": many})
    assert len(own.rules) == 10_000
    assert len({rule.name for rule in own.rules}) == 10_000


def test_a_wrong_argument_is_not_blamed_on_the_environment(monkeypatch):
    """What was given in code goes before the variable."""
    monkeypatch.setenv("SHIELD_MODE", "shadow")
    lines = problems(lambda: Shield({"shield": {"mode": "of"}}))
    assert lines == ("settings: shield.mode: found 'of'; allowed is 'enforce', 'shadow' or 'off'",)


# --- nothing is half-loaded -------------------------------------------------------------------


def test_a_wrong_file_makes_no_shield(monkeypatch):
    """The shared one is tried again, and is right when the file is."""
    from shield import default

    monkeypatch.setattr("shield.shield._default", None)
    file = Path("shield.toml")
    file.write_text(RULE + 'quota = "5"\n')
    problems(default)
    file.write_text(RULE + 'quota = "5/s"\n')
    assert default().rules[0].match == "orders"


def test_a_settings_error_is_a_shield_error():
    """One base for all that Shield raises."""
    with pytest.raises(ShieldError):
        Shield({"rules": [{}]})


# --- where settings come from -----------------------------------------------------------------


def test_without_any_file_there_are_defaults():
    """Enforcing, open, no rule, and the program's name."""
    settings = load_settings()
    assert (settings.mode, settings.on_plugin_error, settings.rules) == ("enforce", "open", [])
    assert not settings.names_producer
    assert settings.producer


@pytest.mark.parametrize(
    ("program", "name"),
    [("/srv/shop.py", "shop"), ("/srv/shop/__main__.py", "shop"), ("", "python"), ("-c", "-c")],
)
def test_a_process_is_called_as_its_program(program, name, monkeypatch):
    """A package that is run has the package's name."""
    monkeypatch.setattr(sys, "argv", [program])
    assert load_settings().producer == name


def test_a_file_is_found_by_itself():
    """`shield.toml` in the working directory."""
    Path("shield.toml").write_text('[shield]\nproducer = "shop"\n' + RULE)
    shield = Shield.load()
    assert (shield.settings.producer, shield.rules[0].match) == ("shop", "orders")
    assert shield.settings.names_producer
    assert shield.settings.source == "shield.toml"


def test_a_named_file_goes_before_the_variable_and_that_before_the_found_one(monkeypatch):
    """`load(path)`, then `SHIELD_CONFIG`, then `./shield.toml`."""
    for name in ("named", "variable", "shield"):
        Path(f"{name}.toml").write_text(f'[shield]\nproducer = "{name}"\n')
    assert load_settings().producer == "shield"
    monkeypatch.setenv("SHIELD_CONFIG", "variable.toml")
    assert load_settings().producer == "variable"
    assert load_settings("named.toml").producer == "named"


def test_the_environment_goes_before_the_file(monkeypatch):
    """Variable by variable; what none sets stays as in the file."""
    Path("shield.toml").write_text('[shield]\nproducer = "shop"\nmode = "shadow"\n' + RULE)
    monkeypatch.setenv("SHIELD_MODE", "off")
    settings = load_settings()
    assert (settings.mode, settings.producer, len(settings.rules)) == ("off", "shop", 1)


def test_rules_may_come_from_the_environment(monkeypatch):
    """As JSON, for containers."""
    monkeypatch.setenv("SHIELD_RULES", json.dumps([{"match": "orders", "quota": "5/s"}]))
    assert Shield.load().rules[0].policies[0].name == "quota"


def test_arguments_go_before_the_environment(monkeypatch):
    """The environment stands in for what they leave out."""
    monkeypatch.setenv("SHIELD_MODE", "off")
    monkeypatch.setenv("SHIELD_PRODUCER", "variable")
    settings = Shield({"shield": {"producer": "argument"}}).settings
    assert (settings.producer, settings.mode) == ("argument", "off")


def test_one_table_or_a_bare_value_stands_for_a_list():
    """`quota = "5/s"`, one table, and a list of tables say the same."""
    for quota in ("5/s", {"rate": "5/s"}, ["5/s"], [{"rate": "5/s"}]):
        (policy,) = Shield({"rules": [{"match": "a", "quota": quota}]}).rules[0].policies
        assert str(policy.settings.rate) == "5/s"


def test_a_chain_may_be_one_action_and_an_action_a_table():
    """Text and table forms mean the same."""
    for chain in ("wait 2s", ["wait 2s"], [{"wait": "2s"}], {"wait": {"limit": 2}}):
        (action,) = Shield({"rules": [{"match": "a", "over_limit": chain}]}).rules[0].chain
        assert (action.name, action.settings.limit) == ("wait", 2.0)


@pytest.mark.parametrize(("former", "name"), RENAMED.items())
def test_a_former_key_is_an_error_that_names_the_present_one(former, name):
    """It is no alias; and no other key that looks more like it is meant."""
    (line,) = problems(lambda: Shield({"rules": [{"match": "*", former: "1s"}]}))
    assert line.startswith(f"settings: rules[0].{former}: unknown key; did you mean {name!r}? ")
