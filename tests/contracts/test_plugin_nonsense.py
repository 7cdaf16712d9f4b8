"""Nonsense from plugins, over the fake client."""

from __future__ import annotations

import pytest

from tests.contracts.plugin_nonsense import PluginNonsense
from tests.contracts.test_fake_client import FakeAdapter


class TestNonsenseUnderTheFakeClient(PluginNonsense):
    @pytest.fixture
    def adapter(self):
        return FakeAdapter()
