"""What `benchmarks.backends.hit_ratio` compares.

policies    LRU, SIEVE and FIFO, exact: pure
zipf        requests drawn by popularity: pure, given the seed
"""
