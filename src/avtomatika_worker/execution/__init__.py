"""Turns a task into its outcome. Whatever a skill does, only an outcome leaves here."""
