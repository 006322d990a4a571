"""The console's files as served: complete, cached with revalidation, and unable to reach another host."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from worlds import client_of, gateway, is_problem, world

from gateway.api.console import FOLDER, MEDIA_TYPES, PATHS, read_page

pytestmark = pytest.mark.virtual_time

FILES = sorted(FOLDER.iterdir())
CONTENTS = {path.name: path.read_bytes() for path in FILES}
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
IMPORT = re.compile(r'from "([^"]+)"')
LOADED = re.compile(r'(?:href|src)="(console/[^"]+)"')
LONGEST, WIDEST = 300, 120


def label(path: Path) -> str:
    """Return the name of the file, for the name of the test."""
    return path.name


@pytest.mark.parametrize("path", FILES, ids=label)
async def test_every_file_is_served_as_what_it_is(path: Path) -> None:
    """Every file of the folder is served with its path, media type and content."""
    _, client = gateway()
    accept = {"Accept": "text/html"} if path.suffix == ".html" else {}
    response = await client.get(PATHS.get(path.name, f"/console/{path.name}"), headers=accept)
    assert response.status_code == 200 and response.content == CONTENTS[path.name]
    assert response.headers["content-type"].startswith(MEDIA_TYPES[path.suffix])
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-request-id"]


async def test_the_policy_allows_this_gateway_and_nothing_else() -> None:
    """The content security policy allows only the page's own origin, and no inline script or style."""
    _, client = gateway()
    policy = (await client.get("/")).headers["content-security-policy"]
    sources = {directive: set(allowed) for directive, *allowed in (one.split() for one in policy.split(";"))}
    assert sources["default-src"] == {"'none'"}
    assert sources["script-src"] == sources["style-src"] == sources["connect-src"] == {"'self'"}
    assert {source for allowed in sources.values() for source in allowed} <= {"'self'", "'none'", "data:"}


async def test_a_file_is_sent_once_for_each_content() -> None:
    """A client that has a file gets a 304 without a body, and each content has its own tag."""
    _, client = gateway()
    first = await client.get("/")
    again = await client.get("/", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert again.status_code == 304 and again.content == b""
    assert again.headers["etag"] == first.headers["etag"] and "no-cache" in again.headers["cache-control"]
    assert (await client.get("/", headers={"If-None-Match": '"other"'})).status_code == 200
    tags = sorted(file.tag for file in read_page().values())
    assert all(one != other for one, other in pairwise(tags))


async def test_what_is_no_file_of_the_page_is_a_problem() -> None:
    """A path outside the console is a 404, and another method is a 405."""
    _, client = gateway()
    for path in (
        "/console/",
        "/console/advise.html",
        "/console/../app.py",
        "/console/%2e%2e/app.py",
        "/index.html",
    ):
        assert is_problem(await client.get(path), "not_found", 404)
    assert is_problem(await client.post("/"), "method_not_allowed", 405)


async def test_looking_at_the_page_is_no_request_that_is_counted() -> None:
    """A request for a console file has no record."""
    told = world()
    await client_of(told).get("/")
    assert told.kept.records == []


def test_the_pages_load_what_there_is() -> None:
    """Every file that a page or a module loads exists, and every module is loaded."""
    pages = [(FOLDER / page).read_text("utf-8") for page in PATHS]
    named = {path.removeprefix("console/") for page in pages for path in LOADED.findall(page)}
    reached = set(named)
    while fresh := {one for name in named if name.endswith(".js") for one in imports(FOLDER / name)} - reached:
        reached |= fresh
        named = fresh
    assert reached == {path.name for path in FILES} - set(PATHS)


def imports(script: Path) -> set[str]:
    """Return the modules that a module imports, after checking that all are relative."""
    found = IMPORT.findall(script.read_text("utf-8"))
    assert all(one.startswith("./") for one in found), "no other host, no bare name"
    return {one.removeprefix("./") for one in found}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_a_file_of_the_page_fits_in_the_head(path: Path) -> None:
    """No console file exceeds 300 lines of 120 columns; scripts begin with a comment and never parse data as markup."""
    text = path.read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) <= LONGEST and max(len(line) for line in lines) <= WIDEST
    if path in SCRIPTS:
        assert re.match(r"// [A-Z][^\n]+[.:,]?\n", text)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|localStorage", text)


@pytest.mark.parametrize("path", FILES, ids=label)
def test_nothing_of_the_page_names_another_host(path: Path) -> None:
    """No console file names another host, except the namespace of SVG."""
    found = re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]{2,}", path.read_text("utf-8"))
    assert set(found) <= {"http://www.w3.org"}
