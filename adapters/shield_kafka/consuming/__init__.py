"""kafka-python's consumer under Shield."""
