"""`shield demo` on Kafka."""
