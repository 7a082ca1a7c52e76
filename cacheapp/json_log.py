"""A log formatter for machines: one JSON object per line, with all extra fields of the record."""

import json
import logging
from datetime import UTC, datetime

_OF_EACH_RECORD = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None)).keys() | {"message", "asctime", "taskName"}
)


class JsonFormatter(logging.Formatter):
    """Formats a record as `{"time": …, "level": …, "logger": …, "pid": …, "message": …, "event": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. A field that JSON does not know is written as text."""
        moment = datetime.fromtimestamp(record.created, UTC)
        fields = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        extra = {name: it for name, it in vars(record).items() if name not in _OF_EACH_RECORD}
        if record.exc_info:
            extra["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            extra["stack"] = self.formatStack(record.stack_info)
        return json.dumps({**extra, **fields}, default=str, ensure_ascii=False)
