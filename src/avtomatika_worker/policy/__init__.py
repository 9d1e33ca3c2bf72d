"""Decisions, as pure functions and small values: time and randomness are arguments, nothing is awaited."""
