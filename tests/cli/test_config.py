from __future__ import annotations

import json
import tomllib

import pytest

RULES = """
[shield]
producer = "checkout"

[[rules]]
name = "orders"
match = "orders.*"
except = "orders.overflow"
quota = [{ rate = "500/s", burst = 1000 }, "5MiB/s"]
in_flight = { messages = 10_000 }
over_limit = ["wait 200ms", "overflow kafka://bob:s3cr@t@host/orders.overflow"]

[[rules]]
match = "audit"
mode = "shadow"
quota = "5/s"
"""

RULE = '[[rules]]\nmatch = "a"\n'
WRONG = {
    "no TOML": ("match = ", "is not TOML"),
    "unknown key": (RULE + 'quotas = "5/s"', "did you mean 'quota'"),
    "rate without unit": (RULE + 'quota = "500"', "rules[0].quota[0].rate"),
    "negative rate": (RULE + 'quota = "-5/s"', "found '-5/s'; a rate is above 0"),
    "rate of nought": (RULE + 'quota = "0/s"', "found '0/s'; a rate is above 0"),
    "burst below one": (RULE + 'quota = { rate = "5/s", burst = 0 }', "allowed is 1 or more"),
    "empty match": ('[[rules]]\nmatch = ""', "rules[0].match"),
    "no such action": (RULE + 'over_limit = ["explode"]', "'explode'"),
    "overflow to itself": (RULE + 'over_limit = ["overflow a"]', "over_limit[0]"),
    "after raise": (RULE + 'over_limit = ["raise", "drop"]', "'drop' stands after 'raise'"),
    "one name twice": ((RULE + 'name = "x"\n') * 2, "another rule's name"),
}


@pytest.mark.parametrize(("text", "expected"), WRONG.values(), ids=list(WRONG))
def test_wrong_settings_are_one_line_on_stderr_and_status_2(run, write, text, expected):
    write(text)
    result = run("config", "check")
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("shield.toml: ")
    assert expected in line


def test_each_problem_has_its_own_line(run, write):
    write('[[rules]]\nmatch = ""\n[[rules]]\nmatch = "a"\nquota = "5"')
    assert len(run("config", "show").stderr.splitlines()) == 2


@pytest.mark.parametrize(
    "command", [("config", "check"), ("config", "show"), ("config", "schema"), ("plugins",)]
)
def test_a_named_file_that_is_missing_is_refused(run, command):
    result = run("--config", "nowhere.toml", *command)
    assert (result.exit_code, result.stderr) == (2, "nowhere.toml: there is no such file\n")


def test_a_file_that_cannot_be_read_is_refused(run):
    result = run("--config", ".", "config", "check")
    assert (result.exit_code, result.stderr) == (2, ".: cannot be read: Is a directory\n")


@pytest.mark.parametrize(("variable", "value"), [("MODE", "sometimes"), ("RULES", "5")])
def test_a_wrong_environment_variable_is_named(run, monkeypatch, variable, value):
    monkeypatch.setenv(f"SHIELD_{variable}", value)
    result = run("config", "check")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"environment variable SHIELD_{variable}: ")


def test_check_shows_what_was_loaded(run, write):
    write(RULES)
    result = run("config", "check")
    assert result.exit_code == 0
    assert result.stdout.startswith("shield.toml: fine, 2 rules\n")
    for text in ("orders.* except", "rate=500/s", "wait 200ms > overflow", "rule-2 (shadow)"):
        assert text in result.stdout


def test_check_takes_the_named_file(run, write):
    write("", "shield.toml")
    name = write(RULES, "other.toml")
    result = json.loads(run("--config", name, "config", "check", "--json").stdout)
    assert result["source"] == "other.toml"
    assert [rule["name"] for rule in result["rules"]] == ["orders", "rule-2"]
    assert result["rules"][0]["policies"]["quota"][0] == {"rate": "500/s", "burst": 1000}


def test_check_without_settings_says_that_nothing_applies(run):
    result = run("config", "check")
    assert result.exit_code == 0
    assert "no ./shield.toml" in result.stdout


def test_show_is_toml_that_can_be_loaded_again(run, write):
    write(RULES.replace("bob:s3cr@t@", ""))
    first = run("config", "show").stdout
    write(first)
    assert tomllib.loads(run("config", "show").stdout) == tomllib.loads(first)


def test_show_says_where_each_setting_came_from(run, write, monkeypatch):
    write(RULES)
    monkeypatch.setenv("SHIELD_MODE", "shadow")
    text = run("config", "show").stdout
    assert 'mode = "shadow"    # environment variable SHIELD_MODE' in text
    assert 'producer = "checkout"    # shield.toml' in text
    assert 'on_plugin_error = "open"    # default' in text
    origins = json.loads(run("config", "show", "--json").stdout)["origins"]
    assert origins["mode"] == "environment variable SHIELD_MODE"


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_passwords_in_urls_are_masked(run, write, option):
    write(RULES)
    for command in ("show", "check"):
        text = run("config", command, *option).stdout
        assert "s3cr" not in text
        assert "t@host" not in text


def test_schema_describes_the_file_with_the_policies_of_plugins(run):
    schema = json.loads(run("config", "schema").stdout)
    assert {"shield", "rules", "plugins", "credentials"} == set(schema["properties"])
    assert "mode" in schema["properties"]["shield"]["properties"]
    rule = schema["$defs"]["RuleSettings"]["properties"]
    assert {"match", "except", "quota", "in_flight", "over_limit"} <= set(rule)


def test_schema_allows_the_short_forms(run):
    schema = json.loads(run("config", "schema").stdout)
    rule = schema["$defs"]["RuleSettings"]["properties"]
    assert {"array", "string"} <= {choice.get("type") for choice in rule["quota"]["anyOf"]}
    assert {"array", "string"} <= {choice.get("type") for choice in rule["over_limit"]["anyOf"]}


def test_schema_leaves_out_what_is_disabled(run, write):
    write('[plugins]\ndisable = ["in_flight"]')
    schema = json.loads(run("config", "schema").stdout)
    assert "in_flight" not in schema["$defs"]["RuleSettings"]["properties"]
