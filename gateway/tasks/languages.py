"""Names of languages: reads the codes that clients and checkpoints write, and finds what of a checkpoint's is meant.

Reads `en`, `eng`, `en-US`, `en_XX`, `eng_Latn`, `__en__` and `>>eng<<` alike. It knows no checkpoint and guesses no
language of a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

MOST_CHARACTERS = 20
"""Characters of a code; the longest known has 13."""

REMEMBERED = 4096
"""Codes whose language is remembered: those of several checkpoints of many languages, and of clients."""

_ONE_AND_THREE = """
aa aar ab abk ae ave af afr ak aka am amh an arg ar ara as asm av ava ay aym az aze ba bak be bel bg bul bi bis bm bam
bn ben bo bod br bre bs bos ca cat ce che ch cha co cos cr cre cs ces cu chu cv chv cy cym da dan de deu dv div dz dzo
ee ewe el ell en eng eo epo es spa et est eu eus fa fas ff ful fi fin fj fij fo fao fr fra fy fry ga gle gd gla gl glg
gn grn gu guj gv glv ha hau he heb hi hin ho hmo hr hrv ht hat hu hun hy hye hz her ia ina id ind ie ile ig ibo ii iii
ik ipk io ido is isl it ita iu iku ja jpn jv jav ka kat kg kon ki kik kj kua kk kaz kl kal km khm kn kan ko kor kr kau
ks kas ku kur kv kom kw cor ky kir la lat lb ltz lg lug li lim ln lin lo lao lt lit lu lub lv lav mg mlg mh mah mi mri
mk mkd ml mal mn mon mr mar ms msa mt mlt my mya na nau nb nob nd nde ne nep ng ndo nl nld nn nno no nor nr nbl nv nav
ny nya oc oci oj oji om orm or ori os oss pa pan pi pli pl pol ps pus pt por qu que rm roh rn run ro ron ru rus rw kin
sa san sc srd sd snd se sme sg sag sh hbs si sin sk slk sl slv sm smo sn sna so som sq sqi sr srp ss ssw st sot su sun
sv swe sw swa ta tam te tel tg tgk th tha ti tir tk tuk tl tgl tn tsn to ton tr tur ts tso tt tat tw twi ty tah ug uig
uk ukr ur urd uz uzb ve ven vi vie vo vol wa wln wo wol xh xho yi yid yo yor za zha zh zho zu zul
"""
"""Two letters of ISO 639-1, each with its three of ISO 639-3."""

_OTHERS = """
alb sq arm hy baq eu bur my chi zh cze cs dut nl fre fr geo ka ger de gre el ice is mac mk mao mi may ms per fa rum ro
slo sk tib bo wel cy iw he in id mo ro ji yi fil tl no nb als sq arb ar azj az cmn zh ekk et gaz om sh sr kmr ku khk mn
lvs lv npi ne ory or pbt ps pes fa plt mg quy qu swh sw uzn uz ydd yi zsm ms
"""
"""Other codes of a language, or of its usual standard, each with the code that it is read as: the bibliographic ones of
ISO 639-2, withdrawn ones, and the individual languages that NLLB names where others name the macrolanguage."""

_SCRIPTS = {"cn": "Hans", "sg": "Hans", "tw": "Hant", "hk": "Hant", "mo": "Hant"}
"""Scripts of Chinese by region."""

_FRAME = re.compile(r"\A(?:__|>>)?([A-Za-z]{2,3})((?:[-_][A-Za-z0-9]{2,8}){0,2})(?:__|<<)?\Z")


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    words = text.split()
    return zip(words[::2], words[1::2], strict=True)


_READ_AS = {three: two for two, three in _pairs(_ONE_AND_THREE)} | dict(_pairs(_OTHERS))

UNSPACED = frozenset(("zh", "ja", "th", "lo", "km", "my", "bo", "yue", "wuu"))
"""Languages that put no space between sentences."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language by the shortest code of ISO 639, with a script and a region if its name says them."""

    code: str
    script: str | None = None
    region: str | None = None


@lru_cache(maxsize=REMEMBERED)
def language_of(name: str) -> Language | None:
    """The language of a code; None for what is no code."""
    found = _FRAME.match(name.strip()) if len(name) <= MOST_CHARACTERS else None
    if found is None:
        return None
    code = found[1].lower()
    while code in _READ_AS:
        code = _READ_AS[code]
    script = region = None
    for part in re.split("[-_]", found[2])[1:]:
        if len(part) == 4 and part.isalpha():
            script = part.title()
        elif part.upper() != "XX":
            region = part.lower()
    if script is None and code == "zh" and region is not None:
        script = _SCRIPTS.get(region)
    return Language(code, script, region)


def meant(name: str, among: Iterable[str]) -> str | None:
    """Which of a checkpoint's own codes a client's code means; None if none.

    An equal name is meant before one that reads alike; of several that do, one of the same region, then the first. A
    script that both name must be the same.
    """
    own = list(among)
    if name in own:
        return name
    asked = language_of(name)
    if asked is None:
        return None
    known = [(one, language) for one in own if (language := language_of(one)) is not None]
    alike = [
        (one, language)
        for one, language in known
        if language.code == asked.code and (asked.script is None or language.script in (None, asked.script))
    ]
    same_region = [one for one, language in alike if language.region == asked.region]
    return next(iter(same_region), alike[0][0] if alike else None)


def is_unspaced(name: str) -> bool:
    """True for a language that puts no space between sentences."""
    language = language_of(name)
    return language is not None and language.code in UNSPACED
