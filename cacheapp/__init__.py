"""Caches that all worker processes share, proof that they are, and downloads that use them."""
