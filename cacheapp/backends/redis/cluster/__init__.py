"""RedisCache on a Redis Cluster: which node has a key, what follows a redirection, and scans."""
