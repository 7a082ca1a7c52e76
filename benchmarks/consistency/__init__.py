"""Benchmarks of consistency."""
