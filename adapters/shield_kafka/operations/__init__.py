"""What an operator asks of a Kafka cluster."""
