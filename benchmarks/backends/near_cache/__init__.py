"""What `benchmarks.backends.near` measures, one module for each kind of figure."""
