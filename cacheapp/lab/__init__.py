"""Drives real processes against real backends and records what they saw."""
