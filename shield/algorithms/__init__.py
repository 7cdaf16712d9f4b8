"""Formulas with state, pure: no lock, no clock of their own, nothing of Shield's."""
