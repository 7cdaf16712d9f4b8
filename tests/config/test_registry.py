"""Plugins: found, checked, switched off; two that claim one name are told apart by an error."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from shield import PluginError, Policy, SettingsError, Shield, hookimpl
from shield.config import registry
from shield.config.registry import Registry
from tests.making import Kinds, admits, shield_with

BUILT_INS = {"quota", "in_flight", "wait", "overflow", "endings", "keys"}


class Came(NamedTuple):
    """What a plugin came with, as `importlib.metadata` tells it."""

    name: str
    version: str


class Point:
    """An entry point as `importlib.metadata` has them."""

    def __init__(self, name, load):
        self.name = name
        self.load = load
        self.dist = Came("a-plugin", "1.2")


@pytest.fixture
def installed(monkeypatch):
    """Add entry points to those that are installed."""

    def install(*points):
        found = (*registry._entry_points(), *points)
        monkeypatch.setattr(registry, "_entry_points", lambda: found)

    return install


class Never(Policy):
    def check(self, message, now):
        return self.refuse("never")


def test_built_ins_come_through_entry_points_like_everybodys():
    """Each is a plugin of the distribution, with the hooks it implements."""
    infos = {info.name: info for info in Registry().infos}
    assert infos.keys() >= BUILT_INS
    assert infos["quota"].distribution == "broker-shield"
    assert infos["quota"].hooks == ("shield_policies",)
    assert all(infos[name].state == "on" for name in BUILT_INS)


def test_shields_of_the_same_plugins_share_what_was_found(installed):
    """Nothing is looked up anew for each; another choice of plugins is another registry."""
    first, second = shield_with(), shield_with()
    assert first.registry is second.registry
    disabling = Shield({"plugins": {"disable": ["quota"]}})
    assert "quota" not in disabling.registry.policies
    with_one = shield_with(plugins=[Kinds({"never": Never})])
    assert "never" in with_one.registry.policies
    installed(Point("never", lambda: Kinds({"never": Never})))
    assert "never" in shield_with().registry.policies
    assert "never" not in first.registry.policies


def test_an_installed_plugin_is_found(installed):
    """Its kinds are there by the names it gives."""
    installed(Point("never", lambda: Kinds({"never": Never})))
    registry = Registry()
    assert registry.policies["never"] is Never
    (info,) = [info for info in registry.infos if info.name == "never"]
    assert (info.version, info.distribution, info.state) == ("1.2", "a-plugin", "on")


def test_a_plugin_that_cannot_be_loaded_is_reported_and_left_out(installed, caplog):
    """The others work, the log and `infos` say why."""

    def broken():
        raise ImportError("no such module")

    installed(Point("broken", broken))
    registry = Registry()
    (info,) = [info for info in registry.infos if info.name == "broken"]
    assert info.state == "cannot be loaded: ImportError('no such module')"
    assert "plugin broken (a-plugin) cannot be loaded" in caplog.text
    assert "quota" in registry.policies


def test_any_plugin_can_be_switched_off():
    """Also a built-in: then nobody knows its keys."""
    with pytest.raises(SettingsError, match=r"rules\[0\].quota: unknown key"):
        Shield({"plugins": {"disable": ["quota"]}, "rules": [{"match": "*", "quota": "5/s"}]})
    registry = Shield({"plugins": {"disable": ["quota"]}}).registry
    assert [info.state for info in registry.infos if info.name == "quota"] == ["off"]


def test_a_plugin_is_switched_off_by_the_environment_before_the_file(tmp_path, monkeypatch):
    """As with every setting, the variable goes before the file."""
    file = tmp_path / "shield.toml"
    file.write_text('[plugins]\ndisable = ["wait"]\n')
    monkeypatch.setenv("SHIELD_PLUGINS__DISABLE", '["quota"]')
    shield = Shield.load(file)
    assert shield.settings.plugins.disable == ["quota"]
    states = {info.name: info.state for info in shield.registry.infos}
    assert (states["quota"], states["wait"]) == ("off", "on")


@pytest.mark.parametrize("hook", ["policies", "actions", "resolvers"])
def test_a_name_that_two_plugins_claim_is_an_error_that_names_both(hook):
    """Neither wins by chance."""
    name = {"policies": "quota", "actions": "wait", "resolvers": "key"}[hook]
    with pytest.raises(PluginError) as caught:
        Registry([Kinds(**{hook: {name: object}})])
    assert f"{name!r} comes from both plugin" in str(caught.value)
    assert "disable one under [plugins]" in str(caught.value)


def test_a_hook_that_does_not_exist_is_an_error():
    """A misspelt hook would never be called."""

    class Misspelt:
        @hookimpl
        def shield_polices(self):
            return {}

    with pytest.raises(PluginError, match="shield_polices"):
        Registry([Misspelt()])


def test_a_hook_with_an_argument_that_does_not_exist_is_an_error():
    """It could never be given."""

    class Wrong:
        @hookimpl
        def shield_classify(self, messages):
            return None

    with pytest.raises(PluginError, match="messages"):
        Registry([Wrong()])


def test_two_objects_of_one_class_are_two_plugins():
    """They are told apart by themselves, not by their class."""
    shield = shield_with({"match": "*", "never": {}}, plugins=[Kinds(), Kinds({"never": Never})])
    assert not admits(shield)


def test_two_shields_have_plugins_of_their_own():
    """What one is given the other does not know."""
    shield_with({"match": "*", "never": {}}, plugins=[Kinds({"never": Never})])
    with pytest.raises(SettingsError, match="unknown key"):
        shield_with({"match": "*", "never": {}})
