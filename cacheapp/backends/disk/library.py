"""The installed diskcache: the original, or else the maintained fork `diskcache-community`.

Both have the same interface and format. Where both are installed, the original is used.
"""

try:
    import diskcache
    from diskcache import core
except ModuleNotFoundError:
    try:
        import diskcache_community as diskcache
        from diskcache_community import core
    except ModuleNotFoundError:
        raise ModuleNotFoundError("No module named 'diskcache'", name="diskcache") from None

__all__ = ["core", "diskcache"]
