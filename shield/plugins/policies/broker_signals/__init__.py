"""Policies that refuse while a signal of the broker's is above a limit."""
