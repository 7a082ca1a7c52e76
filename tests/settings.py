"""The project's settings as the tests and the type checker load them: nothing from outside."""

import os
import tempfile
from pathlib import Path

os.environ["DEBUG"] = "0"
os.environ["SECRET_KEY"] = "only-for-tests-" + "x" * 50
os.environ.setdefault(
    "DATA_DIR", str(Path(tempfile.gettempdir()) / f"cacheapp-tests-{os.getpid()}")
)
for name in ("REDIS_URL", "ALLOWED_HOSTS", "DEMO", "DOWNLOAD_ORIGINS", "LOG_LEVEL"):
    os.environ.pop(name, None)

from project.settings import *  # noqa: E402, F403
