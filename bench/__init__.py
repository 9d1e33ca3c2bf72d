"""Benchmarks and long runs."""
