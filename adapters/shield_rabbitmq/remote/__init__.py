"""`amqp://`: a RabbitMQ as a place for messages of any client."""
