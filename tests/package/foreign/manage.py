"""The commands of a project that knows nothing of this checkout."""

import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
if __name__ == "__main__":  # cachecheck starts processes that import this module
    execute_from_command_line(sys.argv)
