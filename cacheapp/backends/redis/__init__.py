"""RedisCache: on django-redis, for several machines."""
