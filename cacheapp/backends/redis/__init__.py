"""RedisCache: the backend on django-redis, shared by several machines."""
