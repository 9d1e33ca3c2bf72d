"""A soak with faults: kills of orchestrator and worker, and calls that break. See ``python -m bench.soak --help``."""
