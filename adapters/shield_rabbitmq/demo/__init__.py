"""`shield demo` on RabbitMQ."""
