"""Endurance at every published orchestrator. See ``python -m bench.endure --help``."""
