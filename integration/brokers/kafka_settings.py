"""What every Kafka of ours is set to, in a container or native."""

from integration.brokers.broker import Setting

_DEFAULTS: dict[str, Setting] = {
    "num.partitions": 4,
    "auto.create.topics.enable": True,
    "group.initial.rebalance.delay.ms": 0,
    # Tests write what is years old; Kafka, which looks every five minutes, would delete it.
    "log.retention.ms": -1,
    # A member that was killed is missed only when its session has run out (default minimum 6 s);
    # kafka-python's own tests have short sessions, too.
    "group.min.session.timeout.ms": 1000,
    # One broker holds every replica; each partition of these topics costs start-up time.
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    # After a kill the broker is let in again only when its old session has run out (default 9 s).
    "broker.heartbeat.interval.ms": 500,
    "broker.session.timeout.ms": 2000,
}


def kafka_settings(overrides: dict[str, Setting]) -> dict[str, str]:
    """The settings as Kafka writes them; an override's name has `_` for each dot."""
    chosen = {name.replace("_", "."): value for name, value in overrides.items()}
    return {name: _text(value) for name, value in (_DEFAULTS | chosen).items()}


def _text(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
