"""The destinations and formats of log lines: loguru, which also receives the standard library's records."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, get_args

import orjson
from loguru import logger
from typing_extensions import override

from service.core.errors import StartError
from service.core.settings import LogLevel, Settings

if TYPE_CHECKING:
    from loguru import Message, Record

ROTATION = "50 MB"
RETENTION = 5
LEVELS = get_args(LogLevel)
DEBUG, ERROR = 10, 40  # the library's numbers
BATCH = 1000  # the level of several lines at once: only the destinations receive it
BATCH_SECONDS = 0.1
MAX_WAITING_LINES = 10_000
SERVER = "uvicorn.error"  # writes the last line of a worker, which then ends by a signal

request_id: ContextVar[str] = ContextVar("request_id", default="-")


def setup(settings: Settings) -> None:
    """Send all log lines to stdout and, if `LOG_FILE` is not empty, to that file.

    Raises StartError if the file cannot be written.
    """
    logger.remove()
    writer = _BatchWriter(_json if settings.log_format == "json" else _text)
    # First, so that `logger.remove` stops it before the destinations. An empty format, because it has its own.
    logger.add(writer, format="", level=settings.log_level, filter=_is_line, backtrace=False, diagnose=False)
    logger.add(_StandardOutput(), level=BATCH)
    if settings.log_file:
        try:
            logger.add(
                settings.log_file.replace("{", "{{").replace("}", "}}"),  # loguru expands braces in a file name
                level=BATCH,
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


def is_read(level: int) -> bool:
    """Return whether any destination receives lines of a level: ask before you bind the fields of a frequent line."""
    return level >= logger._core.min_level  # type: ignore[attr-defined, no-any-return]


def _is_line(record: Record) -> bool:
    return record["level"].no < BATCH


class _BatchWriter:
    """A sink that formats each line once, and passes the lines to the destinations in batches, in their order.

    Its thread writes a batch BATCH_SECONDS after the first line. An error or a line of the server is written at once,
    with all before it. A line takes 23 µs of CPU; it took 69 µs when each destination formatted and wrote it by itself,
    after a stat of the file.
    """

    def __init__(self, format_line: Callable[[Record], str]) -> None:
        self._format_line = format_line
        self._lines: deque[str] = deque()
        self._writing = Lock()
        self._has_lines = Event()
        self._is_stopped = False
        Thread(target=self._write_batches, name="log writer", daemon=True).start()

    def write(self, message: Message) -> None:
        """Accept a line; the library calls this in the thread that logs."""
        record = message.record
        self._lines.append(self._format_line(record))
        if record["level"].no >= ERROR or record["name"] == SERVER or len(self._lines) >= MAX_WAITING_LINES:
            self._write_lines()
        elif not self._has_lines.is_set():
            self._has_lines.set()

    def stop(self) -> None:
        """Write what is left; the library calls this before the process exits."""
        self._is_stopped = True
        self._has_lines.set()
        self._write_lines()

    def _write_batches(self) -> None:
        while not self._is_stopped:
            self._has_lines.wait()
            time.sleep(BATCH_SECONDS)
            self._has_lines.clear()
            self._write_lines()

    def _write_lines(self) -> None:
        with self._writing:
            if batch := "".join(self._lines.popleft() for _ in range(len(self._lines))):
                logger.opt(raw=True).log(BATCH, batch)


class _StandardOutput:
    """A sink that survives its reader: without one it drops the lines, which a log file still receives."""

    def write(self, batch: str) -> None:
        """Write some lines."""
        try:
            sys.stdout.write(batch)
            sys.stdout.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
            print("standard output has no reader: it is closed", file=sys.stderr)  # noqa: T201 - the log may end here


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


def _trace(record: Record) -> str:
    exception = record["exception"]
    lines = traceback.format_exception(exception.value) if exception and exception.value else []
    return _encodable("".join(lines))


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _json(record: Record) -> str:
    fields: dict[str, Any] = {
        "at": record["time"].isoformat(),
        "level": record["level"].name,
        "request_id": request_id.get(),
        "logger": record["name"],
        "message": record["message"],
        **record["extra"],
    }
    if trace := _trace(record):
        fields["exception"] = trace
    try:
        line = orjson.dumps(fields, str, orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate, or an integer of more than 64 bits
        texts = {name: _encodable(str(value)) for name, value in fields.items()}
        line = orjson.dumps(texts, option=orjson.OPT_APPEND_NEWLINE)
    return line.decode()


def _text(record: Record) -> str:
    extra = record["extra"]
    texts = [record["name"] or "", record["message"], *map(str, extra.values())]
    if not "".join(texts).isprintable():
        texts = [_one_line(text) for text in texts]
    name, message, *values = texts
    at = record["time"].isoformat(timespec="microseconds")  # a fifth of the library's own format
    line = f"{at[:26]}{at[26:].replace(':', '')} {record['level'].name:<8} {request_id.get()} {name}: {message}"
    line += "".join(f" {field}={value}" for field, value in zip(extra, values, strict=True))
    if trace := _trace(record):
        line = "\n  | ".join([line, *map(_one_line, trace.splitlines())])
    return f"{line}\n"


def _one_line(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()
