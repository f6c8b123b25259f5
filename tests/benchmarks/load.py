"""The requests of the comparison, sent by wrk in blocks; each block's rate, times and CPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import httpx

from tests.benchmarks.database import FOLDER, Cluster
from tests.benchmarks.servers import HELLO, LOAD_CORE, Accounts, Server

CONNECTIONS = 32
MONTH = "start_date=2026-10-02T00:00:00Z&end_date=2026-11-01T00:00:00Z"
NEW_TASK = {
    "title": "A new task",
    "description": "A description of moderate length, as people write them in practice.",
    "status": "todo",
    "city": "Berlin",
}


@dataclass(frozen=True)
class Endpoint:
    """A kind of request. The path and the body are expressions of Lua, which wrk evaluates for each request."""

    title: str
    path: str
    method: str = "GET"
    body: str = "nil"
    account: str = "reader"
    connections: int = CONNECTIONS


ONE_TASK = '"/tasks/" .. ids[math.random(#ids)]'
ENDPOINTS = {
    "get": Endpoint("GET one", ONE_TASK),
    "list": Endpoint("list of 20", '"/tasks?status=todo&limit=20"'),
    "post": Endpoint("POST", '"/tasks"', "POST", f"[[{json.dumps(NEW_TASK)}]]", account="author"),
    "patch": Endpoint(
        "PATCH", ONE_TASK, "PATCH", """'{"title":"A changed title ' .. math.random(1000000000) .. '"}'"""
    ),
    "analytics": Endpoint("analytics, user", f'"/analytics?{MONTH}"'),
    "analytics_all": Endpoint(
        "analytics, administrator", f'"/analytics?{MONTH}"', account="administrator", connections=2
    ),
}
SCRIPT = """
math.randomseed({seed})
local ids = {{{ids}}}
local headers = {{{headers}}}
request = function() return wrk.format("{method}", {path}, headers, {body}) end
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('JSON{{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"failed":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True)
class Block:
    """What one block of requests to one server came to; times in milliseconds, CPU in microseconds of a request."""

    server: str
    endpoint: str
    requests: int
    rate: float
    p50: float
    p99: float
    server_cpu: float
    database_cpu: float


def headers_of(server: Server, endpoint: Endpoint) -> dict[str, str]:
    """Return the headers of a request."""
    headers = {"Authorization": f"Bearer {server.tokens[endpoint.account]}"}
    if endpoint.body != "nil":
        headers["Content-Type"] = "application/json"
    if endpoint.account == "administrator":
        headers["X-Admin"] = "1"  # for C, which verifies no token
    return headers


def check(server: Server, accounts: Accounts) -> None:
    """Send one request of each kind and compare the answer with what it must contain."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for name, endpoint in ENDPOINTS.items():
            path = f"/tasks/{accounts.task_ids[0]}" if endpoint.path == ONE_TASK else json.loads(endpoint.path)
            body = {"post": json.dumps(NEW_TASK), "patch": '{"title":"A changed title"}'}.get(name)
            answer = client.request(endpoint.method, path, content=body, headers=headers_of(server, endpoint))
            assert answer.status_code == (201 if name == "post" else 200), (server.name, name, answer.text)
            content = answer.json()
            if name == "list":
                items = content["items"] if isinstance(content, dict) else content
                assert len(items) == 20, (server.name, items)
            elif name in {"get", "patch"}:
                assert content["id"] == accounts.task_ids[0], (server.name, content)
            elif name == "analytics":
                assert sum(content["by_status"].values()) == sum(content["by_user"].values()) > 100, content
            elif name == "analytics_all":
                assert len(content["by_user"]) > 900, content


def run(server: Server, name: str, cluster: Cluster, accounts: Accounts, *, seconds: float, seed: int) -> Block:
    """Run one block. Exit if an answer is not 2xx."""
    endpoint = ENDPOINTS[name]
    before, database_before = server.cpu_seconds(), cluster.cpu_seconds()
    result = _wrk(server, endpoint, accounts, seconds=seconds, seed=seed)
    cpu = server.cpu_seconds() - before
    after = cluster.cpu_seconds()
    database_cpu = sum(value - database_before.get(pid, 0) for pid, value in after.items())
    number = result["requests"]
    if not number or result["failed"]:
        sys.exit(f"{server.name}, {endpoint.title}: {result['failed']} of {number} requests failed")
    return Block(
        server=server.name,
        endpoint=name,
        requests=number,
        rate=number / result["microseconds"] * 1e6,
        p50=result["p50"] / 1000,
        p99=result["p99"] / 1000,
        server_cpu=cpu / number * 1e6,
        database_cpu=database_cpu / number * 1e6,
    )


def _wrk(server: Server, endpoint: Endpoint, accounts: Accounts, *, seconds: float, seed: int) -> dict[str, Any]:
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed: apt-get install wrk")
    script = FOLDER / "requests.lua"
    headers = ",".join(f'["{name}"]="{value}"' for name, value in headers_of(server, endpoint).items())
    ids = ",".join(map(str, accounts.task_ids))
    script.write_text(
        SCRIPT.format(
            seed=seed,
            ids=ids,
            headers=headers,
            method=endpoint.method,
            path='"/"' if server.name == HELLO else endpoint.path,
            body=endpoint.body,
        )
    )
    command = ["taskset", "--cpu-list", str(LOAD_CORE), "wrk", "-t1", f"-c{endpoint.connections}"]
    ended = subprocess.run(
        [*command, f"-d{seconds}s", "-s", str(script), server.url], capture_output=True, text=True, check=False
    )
    _, found, text = ended.stdout.partition("JSON")
    assert found, ended.stdout + ended.stderr
    result: dict[str, Any] = json.loads(text.splitlines()[0])
    return result
