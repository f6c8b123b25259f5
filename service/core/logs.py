"""Where log lines go and what they look like: loguru, with the standard library's logging led into it."""

from __future__ import annotations

import logging
import sys
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING, get_args

import orjson
from loguru import logger

from service.core.errors import StartError
from service.core.settings import LogLevel, Settings

if TYPE_CHECKING:
    from loguru import Record

ROTATION = "50 MB"
RETENTION = 5
LEVELS = get_args(LogLevel)
FIRST = ("at", "level", "request_id", "logger", "message")

request_id: ContextVar[str] = ContextVar("request_id", default="-")


def setup(settings: Settings) -> None:
    """Send all log lines to stdout and, where `LOG_FILE` is not empty, to that file.

    Raises StartError where the file cannot be written.
    """
    form = _json if settings.log_format == "json" else _text
    logger.remove()
    logger.add(sys.stdout, format=form, level=settings.log_level, backtrace=False, diagnose=False, colorize=False)
    if settings.log_file:
        try:
            logger.add(
                settings.log_file.replace("{", "{{").replace("}", "}}"),  # a name, and not loguru's pattern for one
                format=form,
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
    logging.getLogger("yoyo").setLevel(logging.WARNING)  # it has a line for each statement of a migration: 241 at first


class _Intercept(logging.Handler):
    """Hands a standard library record to loguru, under the name of the logger that it came from."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = record.levelname if record.levelname in LEVELS else record.levelno
            named = logger.patch(lambda target: target.update({"name": record.name}))
            named.opt(exception=record.exc_info).log(level, "{}", record.getMessage())
        except Exception:  # as every handler: who logs badly is told on stderr, and goes on
            self.handleError(record)


def _fields(record: Record) -> dict[str, object]:
    first = (record["time"].isoformat(), record["level"].name, request_id.get(), record["name"], record["message"])
    return {
        **dict(zip(FIRST, first, strict=True)),
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
    except TypeError:  # a lone surrogate, an integer past 64 bits: rather as text than not at all
        line = orjson.dumps({name: _encodable(str(value)) for name, value in fields.items()})
    record["extra"]["line"] = line.decode()
    return "{extra[line]}\n"


def _text(record: Record) -> str:
    fields = {name: _one_line(str(value)) for name, value in _fields(record).items()}
    trace = _trace(record)
    words = [f"{record['time']:%Y-%m-%dT%H:%M:%S.%f%z}", f"{fields['level']:<8}", fields["request_id"]]
    words += [f"{fields['logger']}:", fields["message"]]
    words += [f"{name}={value}" for name, value in list(fields.items())[len(FIRST) :]]
    record["extra"]["line"] = "\n  | ".join([" ".join(words), *map(_one_line, trace.splitlines())])
    return "{extra[line]}\n"


def _one_line(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()
