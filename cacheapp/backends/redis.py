"""RedisCache: on `django-redis`."""

import django_redis.cache


class RedisCache(django_redis.cache.RedisCache):  # type: ignore[misc]
    """Placeholder until the store lands."""
