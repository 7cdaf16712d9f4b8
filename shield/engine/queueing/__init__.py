"""Messages that wait for their turn, or stand in a queue: in which order, and how long."""
