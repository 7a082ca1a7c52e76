"""Files on disk: partial files, journal, atomic rename, run directories, checksums, names."""
