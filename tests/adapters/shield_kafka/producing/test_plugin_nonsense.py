"""Nonsense from plugins, under kafka-python's producer and librdkafka's mock cluster."""

from __future__ import annotations

import pytest

from tests.adapters.shield_kafka.producing.test_contract import KafkaAdapter
from tests.contracts.adapter import Adapter
from tests.contracts.plugin_nonsense import PluginNonsense


class TestNonsenseUnderKafka(PluginNonsense):
    @pytest.fixture
    def adapter(self, bootstrap, read) -> Adapter:
        return KafkaAdapter(bootstrap, read)
