"""Tests against real brokers, which `integration.brokers` gets; part of `make test`."""
