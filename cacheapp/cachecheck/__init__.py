"""`manage.py cachecheck`: real processes against any alias of anyone's `CACHES`, and a verdict each."""
