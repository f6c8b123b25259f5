"""The destinations and formats of log lines: loguru, which also receives the standard library's records."""

from __future__ import annotations

import logging
import sys
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING, get_args

import orjson
from loguru import logger
from typing_extensions import override

from service.core.errors import StartError
from service.core.settings import LogLevel, Settings

if TYPE_CHECKING:
    from loguru import Record

ROTATION = "50 MB"
RETENTION = 5
LEVELS = get_args(LogLevel)
LEADING_FIELDS = ("at", "level", "request_id", "logger", "message")

request_id: ContextVar[str] = ContextVar("request_id", default="-")


def setup(settings: Settings) -> None:
    """Send all log lines to stdout and, if `LOG_FILE` is not empty, to that file.

    Raises StartError if the file cannot be written.
    """
    formatter = _json if settings.log_format == "json" else _text
    logger.remove()
    logger.add(sys.stdout, format=formatter, level=settings.log_level, backtrace=False, diagnose=False, colorize=False)
    if settings.log_file:
        try:
            logger.add(
                settings.log_file.replace("{", "{{").replace("}", "}}"),  # loguru expands braces in a file name
                format=formatter,
                level=settings.log_level,
                backtrace=False,
                diagnose=False,
                rotation=ROTATION,
                watch=True,
                retention=RETENTION,
            )
        except OSError as error:
            raise StartError(f"LOG_FILE={settings.log_file!r}: {error.strerror}") from None
    logging.basicConfig(
        handlers=[_Intercept()], level=max(logging.INFO, logger.level(settings.log_level).no), force=True
    )
    logging.getLogger("yoyo").setLevel(logging.WARNING)  # INFO: a line per statement, 241 on the first start


class _Intercept(logging.Handler):
    """A handler that passes the standard library's records to loguru under their logger's name."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = record.levelname if record.levelname in LEVELS else record.levelno
            named_logger = logger.patch(lambda target: target.update({"name": record.name}))
            named_logger.opt(exception=record.exc_info).log(level, "{}", record.getMessage())
        except Exception:  # as the standard handlers do: report a bad record on stderr
            self.handleError(record)


def _fields(record: Record) -> dict[str, object]:
    leading = (record["time"].isoformat(), record["level"].name, request_id.get(), record["name"], record["message"])
    return {
        **dict(zip(LEADING_FIELDS, leading, strict=True)),
        **{name: value for name, value in record["extra"].items() if name != "line"},
    }


def _trace(record: Record) -> str:
    exception = record["exception"]
    lines = traceback.format_exception(exception.value) if exception and exception.value else []
    return _encodable("".join(lines))


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _json(record: Record) -> str:
    trace = _trace(record)
    fields = _fields(record) | ({"exception": trace} if trace else {})
    try:
        line = orjson.dumps(fields, str, orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a lone surrogate, or an integer of more than 64 bits
        line = orjson.dumps({name: _encodable(str(value)) for name, value in fields.items()})
    record["extra"]["line"] = line.decode()
    return "{extra[line]}\n"


def _text(record: Record) -> str:
    fields = {name: _one_line(str(value)) for name, value in _fields(record).items()}
    trace = _trace(record)
    columns = [f"{record['time']:%Y-%m-%dT%H:%M:%S.%f%z}", f"{fields['level']:<8}", fields["request_id"]]
    columns += [f"{fields['logger']}:", fields["message"]]
    columns += [f"{name}={value}" for name, value in list(fields.items())[len(LEADING_FIELDS) :]]
    record["extra"]["line"] = "\n  | ".join([" ".join(columns), *map(_one_line, trace.splitlines())])
    return "{extra[line]}\n"


def _one_line(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()
