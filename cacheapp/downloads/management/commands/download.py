"""`manage.py download`, if the packages of the extra `downloads` are installed."""

from cacheapp.management.optional import load_command

Command = load_command("cacheapp.downloads.management.download_command", "downloads")
