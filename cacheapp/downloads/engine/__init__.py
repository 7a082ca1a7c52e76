"""Runs one job: transfers, thread pool, scheduler, thread limit, progress."""
