"""Polls for tasks and runs them. Runs on the main loop."""
