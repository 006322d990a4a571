"""Labels texts with spaCy, and makes up people's names with Faker: `python teacher.py MODEL TEXTS LABELS NAMES`.

Runs as a program of its own in an environment that `labels` makes and throws away, so that neither library is a
dependency of this project; it imports nothing of the project.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import spacy
from faker import Faker

UNUSED = ("tagger", "parser", "senter", "attribute_ruler", "lemmatizer")
"""Parts of the model that entities do not need."""

LOCALES = (
    *("en_US", "en_GB", "en_IN", "en_NZ", "en_AU", "de_DE", "fr_FR", "es_ES", "es_MX", "it_IT", "pt_BR", "nl_NL"),
    *("pl_PL", "sv_SE", "da_DK", "no_NO", "fi_FI", "cs_CZ", "ro_RO", "hu_HU", "hr_HR", "tr_TR", "id_ID", "en_PK"),
)
"""Where the made-up people come from: languages in Latin letters."""

PEOPLE = 400
"""People of each locale."""

SEED = 20140601
AT_ONCE = 128
SAY_EVERY = 500


def label(model: Path, texts: Path, labels: Path) -> None:
    """Writes for each text, a JSON string a line, its entities as `[start, end, type]`; prints how many are done."""
    nlp = spacy.load(model, exclude=list(UNUSED))
    lines = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    with labels.open("w", encoding="utf-8") as out:
        for done, found in enumerate(nlp.pipe(lines, batch_size=AT_ONCE), start=1):
            out.write(json.dumps([[one.start_char, one.end_char, one.label_] for one in found.ents]) + "\n")
            if done % SAY_EVERY == 0 or done == len(lines):
                print(done, len(lines), flush=True)


def name_people(names: Path) -> None:
    """Writes made-up people, `[given name, surname]` a line."""
    Faker.seed(SEED)
    people: dict[tuple[str, str], None] = {}
    for locale in LOCALES:
        fake = Faker(locale)
        people |= {(fake.first_name(), fake.last_name()): None for _ in range(PEOPLE)}
    names.write_text("".join(json.dumps(one) + "\n" for one in people), encoding="utf-8")


if __name__ == "__main__":
    model, texts, labels, names = map(Path, sys.argv[1:])
    name_people(names)
    label(model, texts, labels)
