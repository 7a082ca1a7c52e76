"""What the two stores on this machine share: directories, SQLite connections, slots."""
