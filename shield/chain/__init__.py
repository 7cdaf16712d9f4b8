"""Reacting: what a rule's actions make of a message over the limit."""
