"""Brokers as processes of this machine, installed, started and ended by our own code."""

from integration.brokers.native.kafka import NativeKafka
from integration.brokers.native.rabbitmq import NativeRabbitMQ
from integration.brokers.native.redis import NativeRedis

__all__ = ["NativeKafka", "NativeRabbitMQ", "NativeRedis"]
