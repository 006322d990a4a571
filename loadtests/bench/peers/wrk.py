"""Runs the load generator `wrk` with a Lua script that posts real sentences, and reads its result.

wrk 4 counts statuses from 400 and socket errors as errors, but not a connection that the server closes without an
answer. Before it reports quantiles it corrects for coordinated omission (`stats_correct`): it adds samples for slow
answers, which shifts a median by about one percentile per percent of answers above twice the mean.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.errors import WrkFailed, WrkMissing
from loadtests.sentences import Inputs, classify_body

MARK = "punctual-wrk "
TIMEOUT_S = 10
PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 {}:,.-_/'")

_SCRIPT = """\
local path = {path}
local headers = {{{headers}}}
local bodies = {{
{bodies}}}
local requests, at = {{}}, 0
function init(args)
   for i, body in ipairs(bodies) do requests[i] = wrk.format("POST", path, headers, body) end
end
function request()
   at = at % #requests + 1
   return requests[at]
end
function done(summary, latency, _)
   local e = summary.errors
   io.write(string.format(
      '{mark}{{"requests":%d,"duration_us":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,' ..
      '"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99),
      e.connect, e.read, e.write, e.status, e.timeout))
end
"""


@dataclass(frozen=True)
class Sample:
    """One run of `wrk`: answers, errors, and latency quantiles in seconds. An error may also be an answer."""

    requests: int
    errors: int
    duration_s: float
    p50_s: float
    p90_s: float
    p99_s: float

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return self.requests / self.duration_s

    @property
    def invalid(self) -> str:
        """The errors, if there were any or no answers; else empty."""
        return f"{self.errors} errors in {self.requests} answers" if self.errors or not self.requests else ""


@dataclass(frozen=True)
class Wrk:
    """`wrk` with one server as its target; `script` holds the sentences and the headers."""

    program: str
    url: str
    headers: Mapping[str, str]
    script: Path

    @classmethod
    def at(cls, program: str, url: str, headers: Mapping[str, str], folder: Path, asked: Sequence[Inputs]) -> Wrk:
        """Writes a script that posts the inputs in turn to `/classify` into the folder."""
        bodies = [classify_body(inputs) for inputs in asked]
        return cls(program, url, headers, write_script(folder, "/classify", headers, bodies))

    def run(self, connections: int, seconds: float) -> Sample:
        """Runs for whole seconds; one thread keeps all connections busy. Raises WrkFailed."""
        limits = [f"-c{connections}", f"-d{seconds:.0f}s", f"--timeout={TIMEOUT_S}s"]
        command = [self.program, "-t1", *limits, "-s", str(self.script), self.url]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 2 * TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise WrkFailed(f"wrk did not end within {2 * TIMEOUT_S} s of its time") from None
        if done.returncode:
            raise WrkFailed(f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
        return parsed(done.stdout)


def find_wrk() -> str:
    """The path of `wrk`, searched on PATH. Raises WrkMissing."""
    program = shutil.which("wrk")
    if program is None:
        raise WrkMissing(
            "the speed benchmark needs the load generator wrk: `apt-get install wrk`, `brew install wrk`, "
            "or build it from https://github.com/wg/wrk"
        )
    return program


def parsed(output: str) -> Sample:
    """Reads the result that our script made `wrk` print. Raises WrkFailed if there is none."""
    line = next((line for line in reversed(output.splitlines()) if line.startswith(MARK)), None)
    if line is None:
        raise WrkFailed(f"wrk printed no result: {output.strip()[-500:]}")
    found: dict[str, int] = json.loads(line.removeprefix(MARK))
    return Sample(
        requests=found["requests"],
        errors=sum(found[kind] for kind in ("connect", "read", "write", "status", "timeout")),
        duration_s=found["duration_us"] / 1e6,
        p50_s=found["p50_us"] / 1e6,
        p90_s=found["p90_us"] / 1e6,
        p99_s=found["p99_us"] / 1e6,
    )


def write_script(folder: Path, path: str, headers: Mapping[str, str], bodies: Sequence[bytes]) -> Path:
    """Writes a Lua script that posts the bodies in turn. Returns its path in the folder."""
    all_headers = {"Content-Type": "application/json", **headers}
    script = _SCRIPT.format(
        mark=MARK,
        path=lua_string(path.encode()),
        headers=", ".join(f"[{lua_string(k.encode())}] = {lua_string(v.encode())}" for k, v in all_headers.items()),
        bodies="".join(f"{lua_string(body)},\n" for body in bodies),
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua", dir=folder, delete=False, encoding="ascii") as file:
        file.write(script)
    return Path(file.name)


def lua_string(content: bytes) -> str:
    """The bytes as a Lua string literal; all but plain characters are three-digit decimal escapes."""
    return '"' + "".join(chr(byte) if byte in PLAIN else f"\\{byte:03d}" for byte in content) + '"'
