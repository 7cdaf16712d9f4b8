"""What a Shield says of itself: state, readiness, events, and one log line for each episode."""
