"""Benchmarks of backends."""
