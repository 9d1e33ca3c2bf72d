"""Monitors the worker: health, the watchdog, the machine's load. Runs on the link thread."""
