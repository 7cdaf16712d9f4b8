"""OpenTelemetry's instrumentation of kafka-python sees our clients as its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation.kafka import KafkaInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shield
from shield_kafka.client import internals

ONE_AN_HOUR = {"rate": "1/h", "burst": 1}


class Spans:
    """The spans that ended so far, as a tracing backend would get them."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def take(self) -> list[ReadableSpan]:
        spans = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return spans


@pytest.fixture
def spans() -> Iterator[Spans]:
    """Instrument kafka-python as `opentelemetry-instrument` does, and undo it."""
    spans = Spans()
    KafkaInstrumentor().instrument(tracer_provider=spans.provider)
    yield spans
    KafkaInstrumentor().uninstrument()
    spans.provider.shutdown()


@pytest.fixture
def producer(producers, topic) -> Any:
    """A producer that sends one message of the topic and lets the others overflow."""
    chain = [f"overflow {topic}.overflow"]
    return producers([{"match": topic, "quota": ONE_AN_HOUR, "over_limit": chain}])


def test_each_message_sent_is_one_span_with_its_topic_and_partition(spans, producer, topic):
    """An overflow's is that of the overflow topic, where the message went."""
    places = [producer.send(topic, b"v", b"k").get(60) for _ in range(2)]
    assert [place.topic for place in places] == [topic, f"{topic}.overflow"]
    for place, span in zip(places, spans.take(), strict=True):
        assert span.name == f"{place.topic} send"
        assert span.attributes["messaging.destination"] == place.topic
        assert span.attributes["messaging.kafka.partition"] == place.partition


@pytest.mark.parametrize("headers", [{}, {"headers": None}, {"headers": [("a", b"b")]}], ids=str)
def test_the_trace_reaches_the_topic_with_the_messages_own_headers(
    spans, producer, topic, read, headers
):
    """Whether or not the caller gave headers, and also on the way to an overflow topic."""
    for _ in range(2):
        producer.send(topic, b"v", **headers).get(60)
    for name, span in zip((topic, f"{topic}.overflow"), spans.take(), strict=True):
        (message,) = read(name)
        arrived = dict(message.headers())
        assert format(span.context.trace_id, "032x").encode() in arrived["traceparent"]
        assert arrived.get("a") == dict(headers.get("headers") or ()).get("a")


def test_a_dropped_message_is_no_send_and_no_span(spans, producers, topic):
    """And its future works for those who look at it as the instrumentation does."""
    producer = producers([{"match": topic, "quota": ONE_AN_HOUR, "over_limit": "drop"}])
    futures = [producer.send(topic, b"v", partition=0) for _ in range(2)]
    assert len(spans.take()) == 1
    assert shield.fate(futures[1]) == "dropped"
    assert internals.place_of(futures[1]) == (topic, 0)


def test_a_raised_message_is_no_send_and_no_span(spans, producers, topic):
    """It is still its caller's; a span would say that it was sent."""
    producer = producers([{"match": topic, "quota": ONE_AN_HOUR, "over_limit": "raise"}])
    producer.send(topic, b"v").get(60)
    with pytest.raises(shield.OverLimitError):
        producer.send(topic, b"v")
    assert len(spans.take()) == 1


def test_each_record_iterated_over_is_one_span_in_the_trace_of_its_sender(
    spans, producers, consumers, topic
):
    """Also of a consumer under a rule."""
    producers().send(topic, b"v", b"k", partition=0).get(60)
    (sent,) = spans.take()
    rule = {"match": topic, "direction": "consume", "quota": "100/s"}
    record = next(consumers(topic, [rule]))
    assert record.value == b"v"
    (received,) = spans.take()
    assert received.name == f"{topic} receive"
    assert received.attributes["messaging.destination"] == topic
    assert received.attributes["messaging.kafka.partition"] == 0
    linked = {received.context.trace_id, *(link.context.trace_id for link in received.links)}
    assert sent.context.trace_id in linked
