"""Benchmarks of downloads."""
