"""Histories of cache operations and their judgement. Pure: no clock, disk or threads."""
