"""What an operator asks of a RabbitMQ."""
