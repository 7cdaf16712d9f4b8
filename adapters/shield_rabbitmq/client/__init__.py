"""pika as Shield meets it: the only place that names its private parts."""
