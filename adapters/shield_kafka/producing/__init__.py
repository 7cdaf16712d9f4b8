"""kafka-python's producer under Shield."""
