"""The rows of `benchmarks.backends.lmdb`: caches side by side, in one process and in several.

goals       what is wanted, and whether it is met: pure
peers       the caches, with the servers and files that they need
memcached   a memcached of our own
settings    the Django settings of every process here
site        the page that Gunicorn serves
crew        processes that work at the same moment
calls       one call after the other, in one process
mix         several processes at once
page        requests per second under Gunicorn
memory      what four workers and their cache take
growth      what a get takes as entries grow more
"""
