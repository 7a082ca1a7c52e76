"""Tests of the Redis cache with a copy on this machine."""
