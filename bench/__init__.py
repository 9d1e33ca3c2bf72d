"""Benchmarks: this worker, the official one and a bare loop against one stub orchestrator. See README.md here."""
