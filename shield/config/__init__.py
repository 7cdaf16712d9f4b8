"""Settings: read, checked as a whole, and built into rules that are ready to run."""
