"""Restores the casing and spacing of a lower-cased summary from the text that it summarises.

A model with a lower-cased WordPiece vocabulary writes `x . org server for c + +` where its source has `X.Org` and
`C++`. This module uses only the two texts: no model, no dictionary of names. It takes linear time and never raises.

For any two texts, the result has the summary's characters in their order, apart from case and white space, and
restoring it again changes nothing. If the source does not have a word or a gap, the summary's own stays, except for
marks that English places without doubt: `foo , bar` becomes `foo, bar`.

The first letter of a sentence is not capitalised unless its word has a capital in the middle of a source sentence: a
synopsis begins in lower case.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

ATOM = re.compile(r"(\s*)([^\W_]+|[^\w\s]|_)")
CLOSING = frozenset(",.;:!?)]}%…")
OPENING = frozenset("([{")
INFIX = frozenset("-/:'’@&")
"""Marks that sometimes join two words and sometimes stand alone: only both neighbours together are evidence."""
TIGHT = frozenset("/_")
APOSTROPHES = frozenset("'’")
CONTRACTED = frozenset(("s", "t", "re", "ll", "ve", "d", "m"))
SENTENCE_ENDS = frozenset(".!?")
POINTING = frozenset(("it", "this", "that", "these", "those", "there", "here", "he", "she", "they", "we", "you"))
FOLLOWS_A_NAME = frozenset(
    ("is", "was", "are", "has", "can", "provides", "allows", "offers", "supports", "contains", "lets", "aims")
)
HELD = 2
"""Words or marks after a gap and what it is before that may decide about the gap."""

Key = tuple[str, ...]


@dataclass(frozen=True)
class Atom:
    """A word or a single mark: as written, in lower case, and whether white space comes before it."""

    form: str
    folded: str
    spaced: bool

    @property
    def is_word(self) -> bool:
        """True for letters and digits, False for a mark."""
        return self.form.isalnum()


def restored(summary: str, source: str) -> str:
    """Gives the summary the source's casing of words and spacing of marks."""
    atoms = list(_atoms(summary))
    read = list(_atoms(source))
    said = {atom.folded for atom in atoms}
    return "".join(_written(atoms, _forms(read, said), _gaps(read, said)))


class GrowingSummary:
    """Restores a summary while it is written. The source is looked through once, when it is first needed."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._known: tuple[dict[str, str], dict[Key, int]] | None = None

    def settled(self, beginning: str) -> str:
        """The beginning of `restored`, for any summary that begins with these words.

        A word or mark beside a mark is held back until `HELD` more are there, since they may decide about the space
        between the two. Words are always apart.
        """
        if self._known is None:
            read = list(_atoms(self._source))
            said = {atom.folded for atom in read}
            self._known = _forms(read, said), _gaps(read, said)
        atoms = list(_atoms(beginning))
        certain = len(atoms) - HELD
        settled = next(
            (at for at in range(max(certain, 1), len(atoms)) if not (atoms[at - 1].is_word and atoms[at].is_word)),
            len(atoms),
        )
        return "".join(_written(atoms, *self._known)[:settled])


def _written(atoms: list[Atom], forms: dict[str, str], votes: dict[Key, int]) -> list[str]:
    """Each atom as it is written, with the space before it if there is one."""
    tight = _tight(atoms, votes)
    return [
        ("" if joined else " ") + forms.get(atom.folded, atom.form) for atom, joined in zip(atoms, tight, strict=True)
    ]


def folded(text: str) -> str:
    """Lower-cases letter by letter: unlike with `str.lower`, no letter depends on its neighbours."""
    return "".join(letter.lower() for letter in text)


def _atoms(text: str) -> Iterator[Atom]:
    for match in ATOM.finditer(text):
        yield Atom(match[2], folded(match[2]), bool(match[1]))


def _forms(read: list[Atom], said: set[str]) -> dict[str, str]:
    """Finds the source's most common form of each summary word inside sentences; the first one on a tie.

    The form at a sentence's start counts only if a later letter is a capital, or if the next word shows that it is a
    name (`Gabbi is a tool`).
    """
    inside: dict[str, Counter[str]] = {}
    for at, atom in enumerate(read):
        if atom.is_word and atom.folded in said and (not _begins(read, at) or _is_name(read, at)):
            inside.setdefault(atom.folded, Counter())[atom.form] += 1
    return {word: counts.most_common(1)[0][0] for word, counts in inside.items()}


def _begins(read: list[Atom], at: int) -> bool:
    """True if a sentence begins here, ignoring quotes and brackets."""
    while at > 0 and not read[at - 1].is_word and read[at - 1].form not in SENTENCE_ENDS and not read[at].spaced:
        at -= 1
    return at == 0 or (read[at].spaced and read[at - 1].form in SENTENCE_ENDS)


def _is_name(read: list[Atom], at: int) -> bool:
    atom = read[at]
    if atom.form[1:] != folded(atom.form[1:]):
        return True
    follows = read[at + 1].folded if at + 1 < len(read) else ""
    return follows in FOLLOWS_A_NAME and atom.folded not in POINTING


def _gaps(read: list[Atom], said: set[str]) -> dict[Key, int]:
    """Counts, for each gap, how often the source joins its neighbours minus how often it separates them.

    Keys are (left, right) for a gap between two atoms, or the three atoms around a mark and the gap's place in them.
    """
    votes: Counter[Key] = Counter()
    for left, right in pairwise(read):
        if left.folded in said and right.folded in said:
            votes[left.folded, right.folded] += -1 if right.spaced else 1
    for before, mark, after in zip(read, read[1:], read[2:], strict=False):
        if not mark.is_word and {before.folded, mark.folded, after.folded} <= said:
            around = (before.folded, mark.folded, after.folded)
            votes[(*around, "before")] += -1 if mark.spaced else 1
            votes[(*around, "after")] += -1 if after.spaced else 1
    return votes


def _tight(atoms: list[Atom], votes: dict[Key, int]) -> list[bool]:
    """Decides for each atom whether it follows the one before without a space; True for the first."""
    evidence = [0, *(_evidence(atoms, at, votes) for at in range(1, len(atoms)))]
    tight = []
    for at, atom in enumerate(atoms):
        if at == 0 or not atom.spaced:
            tight.append(True)
        elif evidence[at]:
            tight.append(evidence[at] > 0)
        else:
            after = at + 1 < len(atoms) and (not atoms[at + 1].spaced or evidence[at + 1] > 0)
            tight.append(_usual(atoms, at, after))
    return tight


def _evidence(atoms: list[Atom], at: int, votes: dict[Key, int]) -> int:
    """The source's vote on the gap before an atom: positive to join, negative to separate, zero for no evidence."""
    left, right = atoms[at - 1], atoms[at]
    if left.is_word and right.is_word:
        return 0
    for mark, place in ((at, "before"), (at - 1, "after")):
        if not atoms[mark].is_word and 0 < mark < len(atoms) - 1:
            around = tuple(atom.folded for atom in atoms[mark - 1 : mark + 2])
            if vote := votes.get((*around, place), 0):
                return vote
    if INFIX & {left.form, right.form}:
        return 0
    return votes.get((left.folded, right.folded), 0)


def _usual(atoms: list[Atom], at: int, after: bool) -> bool:
    """True if English joins an atom to the one before it; used without evidence. `after`: the next atom joins."""
    left, right = atoms[at - 1], atoms[at]
    if left.form in OPENING or TIGHT & {left.form, right.form}:
        return True
    if _splits(atoms, at) or _splits(atoms, at - 1):
        return True
    return right.form in CLOSING and left.form not in CLOSING - {")", "]", "}", "%"} and not after


def _splits(atoms: list[Atom], at: int) -> bool:
    """True for a mark inside a number or a contraction: `1 . 5`, `user ' s`."""
    if not 0 < at < len(atoms) - 1:
        return False
    before, mark, after = (atom.form for atom in _around(atoms, at))
    if mark == "." and before.isdecimal() and after.isdecimal():
        return True
    return mark in APOSTROPHES and before.isalnum() and folded(after) in CONTRACTED


def _around(atoms: list[Atom], at: int) -> Iterable[Atom]:
    return atoms[at - 1 : at + 2]
