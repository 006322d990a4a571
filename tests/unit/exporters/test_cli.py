"""Laws of `prepare`, `export` and `profile`: their options, and what they refuse before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup, TyperOption
from typer.testing import CliRunner

from exporters import cli
from exporters.errors import ExportFailed, SourceAbsent, SourceRefused
from gateway.catalogs.catalog import CatalogError

CATALOG = """
name: own
checkpoints:
  - name: a
    task: classify
    tier: quality
    family: BERT
    source: ./nowhere
    licence: MIT
    quality: {metric: accuracy, value: 80, data_set: d, reference: r}
"""


@pytest.fixture
def app() -> typer.Typer:
    """The commands as the program registers them."""
    made = typer.Typer()
    for command in (cli.prepare, cli.export, cli.profile):
        made.command()(command)
    return made


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("prepare", {"--catalog": "starter", "--cache": None}),
        ("profile", {"--catalog": "starter", "--cache": None}),
        ("export", {"--revision": None, "--precision": "int8", "--out": None, "--floor": None, "--cache": None}),
    ],
)
def test_a_command_has_its_options_with_their_defaults(
    app: typer.Typer, command: str, options: dict[str, str | None]
) -> None:
    """Each command has exactly these options and defaults; the default of --cache depends on the user."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    found = {one.opts[0]: one.default for one in group.commands[command].params if isinstance(one, TyperOption)}
    assert set(found) == set(options)
    assert {name: default for name, default in found.items() if name != "--cache"} == {
        name: default for name, default in options.items() if name != "--cache"
    }
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    assert all(name in shown for name in options) and "PUNCTUAL_CACHE" in shown


def test_a_wrong_call_ends_with_status_2(app: typer.Typer) -> None:
    """A wrong call ends with status 2 before anything is imported or made."""
    for arguments in (["export"], ["export", "x", "--precision", "int4"], ["prepare", "--nothing"]):
        assert CliRunner().invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize("command", ["prepare", "profile"])
def test_the_cache_is_where_the_environment_says_unless_the_option_does(
    app: typer.Typer, command: str, tmp_path: Path
) -> None:
    """PUNCTUAL_CACHE takes precedence over the user's cache folder, and --cache over both."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(CATALOG)
    environment = {"PUNCTUAL_CACHE": str(tmp_path / "environment")}
    for arguments, cache in (([], "environment"), (["--cache", str(tmp_path / "option")], "option")):
        ended = CliRunner().invoke(app, [command, "--catalog", str(catalog), *arguments], env=environment)
        assert isinstance(ended.exception, SourceAbsent)
        assert (tmp_path / cache).is_dir()


def test_what_cannot_be_made_is_refused_before_it_is_begun(app: typer.Typer, tmp_path: Path) -> None:
    """An unusable source, an impossible floor and a missing catalog are refused at once, each by its own error."""
    for arguments, expected in (
        (["export", "owner/name", "--cache", str(tmp_path)], SourceRefused),
        (["export", "owner/name", "--floor", "1.5", "--cache", str(tmp_path)], ExportFailed),
        (["prepare", "--catalog", str(tmp_path / "nowhere.yaml")], CatalogError),
    ):
        assert isinstance(CliRunner().invoke(app, arguments).exception, expected)
