"""Users' own channels and connections, shielded."""
