"""The parts that `DiskCache` and `LMDBCache` share: directories, SQLite connections, process slots."""
