"""Redriving: what was set aside comes back through the rules, paced."""
