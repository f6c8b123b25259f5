"""Log lines: one a record whatever it holds, with the request's id and without secrets, to stdout and a file."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest
from loguru import logger

from service.core import logs
from service.core.errors import StartError
from tests.conftest import make_settings

AWKWARD = [
    "two\nlines",
    "carriage\rreturn and \x1b[31mcolour\x1b[0m",
    "\x00\x07\x7f\x85\u2028\u2029",
    "{braces} {0} {} {extra[password]}",
    "<red>markup</red> \\<red>",
    "%s %d %(name)s",
    "a lone surrogate \ud800",
    "שלום \u202e right to left",
]
TEXT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d{4} (INFO|WARNING|ERROR) +\S+ \S+: .*")


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Return a function that configures the log, runs a function and returns the lines of the log file."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def of(what: Callable[[], object], **values: Any) -> list[str]:
        file = tmp_path / "app.log"
        logs.setup(make_settings("", log_file=str(file), **values))
        what()
        logger.remove()
        # Not splitlines(), which parts at more than a newline: whoever reads the file with a pager sees what this sees.
        return file.read_text(encoding="utf-8").removesuffix("\n").split("\n")

    yield of
    logger.remove()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("message", AWKWARD)
def test_a_text_record_is_one_printable_line(lines: Callable[..., list[str]], message: str) -> None:
    (line,) = lines(lambda: logger.bind(field=message).info("{}", message))
    assert line.isprintable()
    assert TEXT.fullmatch(line)
    assert line.count(message if message.isprintable() else message.encode("unicode_escape").decode()) == 2


@pytest.mark.parametrize("message", AWKWARD)
def test_a_json_record_is_one_line_that_holds_the_message_as_it_is(
    lines: Callable[..., list[str]], message: str
) -> None:
    (line,) = lines(lambda: logger.bind(field=message).info("{}", message), log_format="json")
    record = orjson.loads(line)
    expected = message.encode(errors="backslashreplace").decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?[+-]\d\d:\d\d", record["at"])
    assert (record["message"], record["field"]) == (expected, expected)
    assert set(record) == {"at", "level", "request_id", "logger", "message", "field"}


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("value", [2**64, object(), {1: 2}, {"a": "\ud800"}, b"\xff"])
def test_a_field_of_any_kind_is_written(lines: Callable[..., list[str]], log_format: str, value: object) -> None:
    (line,) = lines(lambda: logger.bind(field=value).info("kept"), log_format=log_format)
    assert "kept" in line


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_line_has_the_id_of_its_request(lines: Callable[..., list[str]], log_format: str) -> None:
    def work() -> None:
        token = logs.request_id.set("request-17")
        logger.info("inside")
        logs.request_id.reset(token)
        logger.info("outside")

    inside, outside = lines(work, log_format=log_format)
    assert "request-17" in inside
    assert "request-17" not in outside


def fail() -> None:
    password = "hunter2 in a local variable"
    try:
        raise KeyError(len(password))
    except KeyError as error:
        raise ValueError("it failed \ud800") from error


def log_a_failure() -> None:
    try:
        fail()
    except ValueError:
        logger.exception("request failed")


def test_a_text_trace_follows_its_line_without_local_variables(lines: Callable[..., list[str]]) -> None:
    first, *trace = lines(log_a_failure)
    assert TEXT.fullmatch(first)
    assert trace[-1] == r"  | ValueError: it failed \ud800"
    assert all(line.startswith("  | ") for line in trace)
    assert "in fail" in "".join(trace)
    assert "direct cause" in "".join(trace)
    assert "hunter2" not in "".join(trace)


def test_a_json_trace_is_a_field_of_its_line_without_local_variables(lines: Callable[..., list[str]]) -> None:
    (line,) = lines(log_a_failure, log_format="json")
    trace = orjson.loads(line)["exception"]
    assert trace.endswith("ValueError: it failed \\ud800\n")
    assert "direct cause" in trace
    assert "hunter2" not in trace


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_standard_librarys_records_come_the_same_way(lines: Callable[..., list[str]], log_format: str) -> None:
    def work() -> None:
        library = logging.getLogger("uvicorn.error")
        library.info("started on port %d {braces}\n", 8000)
        library.debug("not of interest")
        library.log(25, "between two levels")
        library.warning("with a trace", exc_info=ValueError("why"))

    first, second, third, *trace = lines(work, log_format=log_format)
    assert "uvicorn.error" in first
    assert "started on port 8000 {braces}" in first
    assert "between two levels" in second
    assert "with a trace" in third
    assert "ValueError: why" in (third if log_format == "json" else trace[-1])


def test_a_record_that_cannot_be_formatted_raises_no_error_in_its_caller(
    lines: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    lines(lambda: logging.getLogger("library").warning("%d", "no number"))
    assert "Logging error" in capsys.readouterr().err


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_stdout_and_the_file_get_the_same_lines(
    lines: Callable[..., list[str]], log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    written = lines(lambda: [logger.info("one {}", n) for n in range(3)], log_format=log_format)
    assert len(written) == 3
    assert capsys.readouterr().out.splitlines() == written


def test_records_below_the_level_are_omitted(lines: Callable[..., list[str]]) -> None:
    def work() -> None:
        logger.info("left out")
        logging.getLogger("library").info("left out")
        logger.error("kept")

    (line,) = lines(work, log_level="WARNING")
    assert line.endswith("kept")


def test_without_a_file_lines_go_to_stdout_alone(
    lines: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.setup(make_settings("", log_file=""))
    logger.info("seen")
    logger.remove()
    assert capsys.readouterr().out.endswith("seen\n")
    assert not list(tmp_path.iterdir())


def test_a_full_file_is_put_aside_and_the_oldest_goes(
    lines: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "ROTATION", 1000)
    (last,) = lines(lambda: [logger.error("{:0>900}", n) for n in range(12)])
    assert last.endswith("11")
    assert len(list(tmp_path.glob("app*.log"))) == 1 + logs.RETENTION


@pytest.mark.parametrize("name", ["", "taken/app.log", "{braces}/app.log"])
def test_a_file_that_cannot_be_written_stops_the_start_in_one_line(
    lines: Callable[..., list[str]], tmp_path: Path, name: str
) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "{braces}").touch()
    with pytest.raises(StartError, match=r"^LOG_FILE=") as failure:
        logs.setup(make_settings("", log_file=f"{tmp_path}/{name}"))
    assert "\n" not in failure.value.detail
    assert str(tmp_path) in failure.value.detail


def test_a_files_name_may_hold_braces(lines: Callable[..., list[str]], tmp_path: Path) -> None:
    logs.setup(make_settings("", log_file=f"{tmp_path}/{{time}}{{0}}.log"))
    assert [path.name for path in tmp_path.iterdir()] == ["{time}{0}.log"]


def count(file: Path) -> int:
    return len(file.read_text().splitlines())


def test_lines_are_written_together_soon_after_the_first(
    lines: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "BATCH_SECONDS", 1)
    file = tmp_path / "app.log"
    logs.setup(make_settings("", log_file=str(file)))
    counts = []
    for n in range(100):
        logger.info("{}", n)
        counts.append(count(file))
    ends_at = time.monotonic() + 10
    while count(file) < 100:
        assert time.monotonic() < ends_at
    assert counts[0] == 0


@pytest.mark.parametrize(
    "write_last", [lambda: logger.error("last"), lambda: logging.getLogger(logs.SERVER).info("last")]
)
def test_an_error_and_a_line_of_the_server_are_written_at_once_after_all_before(
    lines: Callable[..., list[str]], tmp_path: Path, write_last: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "BATCH_SECONDS", 60)
    file = tmp_path / "app.log"
    logs.setup(make_settings("", log_file=str(file)))
    logger.info("first")
    write_last()
    first, last = file.read_text().splitlines()
    assert first.endswith("first")
    assert last.endswith("last")


def test_lines_that_wait_have_a_bound(
    lines: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "BATCH_SECONDS", 60)
    monkeypatch.setattr(logs, "MAX_WAITING_LINES", 10)
    file = tmp_path / "app.log"
    logs.setup(make_settings("", log_file=str(file)))
    for n in range(25):
        logger.info("{}", n)
    assert count(file) == 20


def test_threads_lose_no_line_and_keep_their_order(
    lines: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "BATCH_SECONDS", 0)

    def work() -> None:
        threads = [Thread(target=lambda t=t: [logger.info("{} {}", t, n) for n in range(500)]) for t in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    numbers = [tuple(map(int, line.split()[-2:])) for line in lines(work)]
    assert len(numbers) == 2000
    for thread in range(4):
        assert [n for t, n in numbers if t == thread] == list(range(500))


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "raise KeyError", "import signal; signal.raise_signal(2)"])
def test_a_process_that_exits_loses_no_line(tmp_path: Path, end: str) -> None:
    program = (
        "from loguru import logger\nfrom service.core import logs\nfrom service.core.settings import Settings\n"
        f"logs.setup(Settings(log_file={str(tmp_path / 'app.log')!r}))\n"
        f"for n in range(50): logger.info('{{}}', n)\n{end}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    written = (tmp_path / "app.log").read_text()
    assert [line.split()[-1] for line in written.splitlines()] == [str(n) for n in range(50)]
    assert done.stdout == written


def test_a_file_that_was_renamed_is_made_again(lines: Callable[..., list[str]], tmp_path: Path) -> None:
    file = tmp_path / "app.log"
    logs.setup(make_settings("", log_file=str(file)))
    logger.error("one")
    file.rename(tmp_path / "moved.log")
    logger.error("two")
    assert file.read_text().endswith("two\n")
    assert count(file) == count(tmp_path / "moved.log") == 1


def test_a_level_is_read_if_any_destination_receives_it(lines: Callable[..., list[str]]) -> None:
    read: list[bool] = []
    for level in ("INFO", "DEBUG"):
        lines(lambda: read.append(logs.is_read(logs.DEBUG)), log_level=level)
    assert read == [False, True]
    assert not logs.is_read(logs.ERROR)
