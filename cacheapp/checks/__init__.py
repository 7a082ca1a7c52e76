"""System checks: `manage.py check` reports all mistakes in the settings at once.

Errors: E001 the CACHEAPP setting, E002 an entry of CACHES, E003 a directory on a network
filesystem, E004 a directory that others can write to, E005 a permission of a token that does not
exist, E007 a directory of cacheapp that others can write to, E009 settings of downloads without their
app. Warnings: W001 to W003 a cache that lives in one process (behind `default`, sessions, a rate
limiter), W004 unsigned pickles on a server, W005 a pool smaller than the threads, W006 redis-py's
client-side caching, W007 an empty KEY_PREFIX on a server, W008 a KEY_PREFIX that covers another alias's
keys, W010 pages without their script, W016 a directory that Gunicorn's `user` cannot use, W017 tables of
downloads without their app. `cacheapp.downloads.checks` has those of downloads: E006, E008, E010, W009
and W014.
"""

from cacheapp.checks import caches, gunicorn, site, unlike

__all__ = ["caches", "gunicorn", "site", "unlike"]
