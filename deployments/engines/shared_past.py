"""Keeps the keys and values of texts that step together, in buffers that are written in place.

A row's keys and values stand in the place of their position, so rows may be unequally far; behind a row's length are
leftovers, which graphs mask. Sources stand in pages: a text alone has its own as one page, as long as it is; in company
all pages are of one size. The rows in use come first, and so do the pages, so that graphs read the buffers as they are.
A step writes one place of each row. A text that joins is copied once, and one that leaves costs a copy of others into
its places. Beams copy a row where they fork, and nothing where they swap or die.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.engines.base import Logits, Pending, TokenIds
from deployments.engines.past_memory import PastLedger, PastNeed, bytes_of

POSITIONS, PLACES, SLOTS = "position_ids", "text_places", "text_slots"
"""The inputs of a graph whose rows may be unequally far, and of several texts: the position of each row's new token,
(rows,), the rows of the text of each page, (pages, beams), and where each row stands in those of its own text, counted
through, (rows, most pages of a text), -1 where its text has fewer."""

PAGE = 128
"""Tokens of a source that make a page in company. Set by hand: half a page a text is read in vain."""

TOKENS_STEP = 32
"""Tokens by which a buffer grows, which copies it. Set by hand: what is not used of them is read and masked."""

WASTED = 2
"""A buffer of more than this multiple of what is in it is made anew: memory goes with the texts. Set by hand."""

COPIES = 2 * WASTED
"""The most that pasts take at any time, divided by what is in them: `WASTED`, while all of it is copied once."""

Values: TypeAlias = NDArray[Any]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Share:
    """One text's part of a past: its rows by beam, the tokens in each, its source's pages, and the tokens of that."""

    past: SharedPast
    rows: TokenIds
    length: int
    pages: TokenIds
    source: int
    arranged: bool = False
    """True if its rows follow their origins already, and only the step itself has failed."""

    lost: bool = False
    """True if rows were moved and others were not, since memory ran out between: no step of it would be right."""


class SharedPast:
    """Keys and values of texts that step together: of their own tokens by row, and of their sources by text.

    `own` is (names, rows, heads, tokens, width), `cross` has (pages, heads, page, width) by name. It knows its texts
    weakly, so that it goes when the last of them does.
    """

    def __init__(self, own: Values, cross: Sequence[Values], ledger: PastLedger) -> None:
        """Takes buffers that it may write to, and the ledger of the engine."""
        self.own = own
        self.cross = list(cross)
        self.ledger = ledger
        self.stepping = False
        self._members: list[weakref.ref[Share]] = []
        ledger.add(self)

    @classmethod
    def begun(
        cls, own: Sequence[Values], cross: Sequence[Values], ledger: PastLedger, source: int | None = None
    ) -> Share:
        """The share of a text alone: its own keys and values (rows, heads, tokens, width), all of one shape.

        `cross` is that of its source (pages, heads, page, width), kept as it is: texts that join get buffers of their
        own, so others may read it too. Without the length of the source it is full.
        """
        rows, heads, tokens, width = own[0].shape
        room = np.zeros((len(own), rows, heads, rounded(tokens + 1), width), dtype=own[0].dtype)
        for at, one in enumerate(own):
            room[at, :, :, :tokens] = one
        pages, _, page, _ = cross[0].shape
        share = Share(cls(room, cross, ledger), np.arange(rows), tokens, np.arange(pages), source or pages * page)
        share.past.hold((share,))
        return share

    @property
    def nbytes(self) -> int:
        """The bytes of its buffers."""
        return self.own.nbytes + bytes_of(self.cross)

    @property
    def members(self) -> list[Share]:
        """The texts that are still there: neither ended nor gone on elsewhere."""
        return [share for one in self._members if (share := one()) is not None and share.past is self]

    def holds(self, shares: Sequence[Share]) -> bool:
        """True if these were its texts at the step before, and it had no others."""
        return len(shares) == len(self._members) and all(
            one() is share and share.past is self for one, share in zip(self._members, shares, strict=True)
        )

    def hold(self, shares: Sequence[Share]) -> None:
        """Has these texts, and no others, in it."""
        self._members = [weakref.ref(one) for one in shares]

    def tidy(self) -> None:
        """Gives back the room of texts that are gone, if it is more than may be wasted."""
        shares = self.members
        if shares and _wasteful(self, shares):
            for one in shares:
                one.lost = True
            _arrange_rows(self, shares, [np.arange(len(one.rows)) for one in shares])
            _arrange_sources(self, shares)
            self.hold(shares)
            for one in shares:
                one.lost = False

    def write(self, made: Sequence[Values], shares: Sequence[Share]) -> None:
        """Writes the keys and values that a step has made, (rows, heads, 1, width) by name, and counts its token."""
        rows, lengths = by_row(shares)
        self.own[:, rows, :, lengths] = np.stack([one[:, :, 0] for one in made], axis=1)[rows]
        for one in shares:
            one.length += 1


def by_row(shares: Sequence[Share]) -> tuple[TokenIds, TokenIds]:
    """The rows of all texts, text by text, and the length of each."""
    if len(shares) == 1:
        return shares[0].rows, np.full(len(shares[0].rows), shares[0].length)
    rows = np.concatenate([one.rows for one in shares])
    return rows, np.repeat([one.length for one in shares], [len(one.rows) for one in shares])


RunRows: TypeAlias = Callable[[SharedPast, Sequence[Share], TokenIds], tuple[Logits, Sequence[Values]]]
"""Runs the next token of each row, token ids (rows,), of the texts that share a past. Gives logits (rows, vocabulary),
and by name the keys and values (rows, heads, 1, width) of those tokens."""


class StepRunner:
    """Steps texts together, several companies at once on several threads."""

    def __init__(self, run: RunRows) -> None:
        """Takes what runs a step of a past."""
        self.ledger = PastLedger()
        self._run = run
        self._arranging = threading.Lock()

    def tidy(self) -> None:
        """Has pasts give back what texts held that are gone. Those under a step have only texts that step."""
        with self._arranging:
            self._tidy()

    def _tidy(self) -> None:
        for past in self.ledger.of(SharedPast):
            if not past.stepping:
                past.tidy()

    def step(self, shares: Sequence[Share], pending: Sequence[Pending]) -> list[Logits]:
        """Runs one step of each text; gives the logits (beams, vocabulary) of each. Blocking.

        Raises RuntimeError for texts whose rows are lost, by a step that failed while it moved them.
        """
        with self._arranging:  # while another thread tidies, its texts count as lost
            if any(one.lost for one in shares):
                raise RuntimeError("an earlier step failed while it moved the text's rows")
            origins = [
                np.arange(len(share.rows)) if share.arranged else of_rows
                for share, (_, of_rows) in zip(shares, pending, strict=True)
            ]
            for one in shares:
                one.lost = True
            alike = shares[0].past.holds(shares)
            past = arranged(shares, origins)
            past.stepping = True
            if not alike:
                self._tidy()
        for one in shares:
            one.lost, one.arranged = False, True
        rows, _ = by_row(shares)
        ids = np.empty(len(rows), dtype=np.int64)
        ids[rows] = np.concatenate([tokens for tokens, _ in pending])
        try:
            logits, made = self._run(past, shares, ids)
            past.write(made, shares)
        finally:
            past.stepping = False
        for one in shares:
            one.arranged = False
        return [logits[one.rows] for one in shares]


def arranged(shares: Sequence[Share], origins: Sequence[TokenIds]) -> SharedPast:
    """Has the texts, and no others, share one past, in which each one's rows follow its origins.

    The past is that of most of them. Whoever else is in it goes on in one of its own. Only one thread at a time may
    arrange; then it may step on the past without the others waiting for it, since nobody else has texts in it.
    """
    past = max((one.past for one in shares), key=lambda one: sum(share.past is one for share in shares))
    alike = past.holds(shares)
    if not alike:
        for other in past.members:
            if not any(other is share for share in shares):
                _part(other)
    _arrange_rows(past, shares, origins, is_same=alike)
    if not alike:
        _arrange_sources(past, shares)
        for share in shares:
            share.past = past
        past.hold(shares)
    return past


def _wasteful(past: SharedPast, shares: Sequence[Share]) -> bool:
    """True if its buffers are more than `WASTED` times what these texts need of them."""
    _, room, _, tokens, _ = past.own.shape
    rows, needed = sum(len(one.rows) for one in shares), rounded(1 + max(one.length for one in shares))
    return room * tokens > WASTED * rows * needed or len(past.cross[0]) > WASTED * sum(map(_pages_needed, shares))


def most_bytes(needs: Sequence[PastNeed], own_bytes: int, cross_bytes: int) -> int:
    """The most bytes of texts of these needs together, by those of one position of a row, and of a source.

    In company every row is as long as the longest. A text alone has its source as it came, which takes no more.
    """
    if not needs:
        return 0
    rows, tokens = sum(one.rows for one in needs), rounded(1 + max(one.positions for one in needs))
    read = sum(-(-one.source // PAGE) for one in needs) * PAGE
    return COPIES * (rows * tokens * own_bytes + read * cross_bytes)


def rounded(tokens: int) -> int:
    """The tokens of a buffer for so many."""
    return -(-tokens // TOKENS_STEP) * TOKENS_STEP


def twin(share: Share) -> Share:
    """Another text that is just as far, in a past of its own."""
    own = list(share.past.own[:, share.rows, :, : share.length])
    return SharedPast.begun(own, [one[share.pages] for one in share.past.cross], share.past.ledger, share.source)


def _part(share: Share) -> None:
    """Has a text go on in a past of its own."""
    alone = twin(share)
    share.past, share.rows, share.pages = alone.past, alone.rows, alone.pages
    share.past.hold((share,))


def _arrange_rows(
    past: SharedPast, shares: Sequence[Share], origins: Sequence[TokenIds], *, is_same: bool = False
) -> None:
    """Gives each text the rows of its origins, copying those alone that fork, join or would leave a gap.

    It `is_same` if the texts are those of the step before.
    """
    names, room, heads, tokens, width = past.own.shape
    rows, needed = sum(map(len, origins)), rounded(1 + max(one.length for one in shares))
    if rows <= room and needed <= tokens and room * tokens <= WASTED * rows * needed:
        if not is_same or any(map(_moves, shares, origins)):
            _follow(past, shares, origins, rows)
        return
    room = room if rows <= room <= WASTED * rows else _power_of_two(rows)
    own, at = np.zeros((names, room, heads, needed, width), dtype=past.own.dtype), 0
    for share, origin in zip(shares, origins, strict=True):
        mine = np.arange(at, at + len(origin))
        own[:, mine, :, : share.length] = share.past.own[:, share.rows[origin], :, : share.length]
        share.rows, at = mine, at + len(origin)
    past.own = own


def _follow(past: SharedPast, shares: Sequence[Share], origins: Sequence[TokenIds], rows: int) -> None:
    """Has each text's rows follow its origins within the room that there is.

    The first beam of a row keeps it. Rows that nobody keeps are free for others, of which the lowest are taken.
    """
    kept = [_kept(one, origin) if one.past is past else {} for one, origin in zip(shares, origins, strict=True)]
    free = _free({row for mine in kept for row in mine.values()})
    for share, origin, mine in zip(shares, origins, kept, strict=True):
        found = np.empty(len(origin), dtype=np.int64)
        for beam, source in enumerate(share.rows[origin].tolist()):
            row = mine.get(beam, -1)
            if row < 0 or row >= rows:
                row = next(free)
                past.own[:, row, :, : share.length] = share.past.own[:, source, :, : share.length]
            found[beam] = row
        share.rows = found


def _moves(share: Share, origins: TokenIds) -> bool:
    """True unless each row follows itself."""
    return len(origins) != len(share.rows) or (len(origins) > 1 and bool((origins != np.arange(len(origins))).any()))


def _kept(share: Share, origins: TokenIds) -> dict[int, int]:
    """The rows that beams keep: each beam that is the first of its origin, and its row."""
    firsts: dict[int, int] = {}
    for beam, row in enumerate(share.rows[origins].tolist()):
        firsts.setdefault(row, beam)
    return {beam: row for row, beam in firsts.items()}


def _arrange_sources(past: SharedPast, shares: Sequence[Share]) -> None:
    """Gives the texts' sources the first pages, copying those alone that join or would leave a gap."""
    if len(shares) == 1 and len(shares[0].pages) == len(past.cross[0]):
        return
    counts = [_pages_needed(one) for one in shares]
    room, _, size, _ = past.cross[0].shape
    if size != PAGE or not sum(counts) <= room <= WASTED * sum(counts):
        _gather(past, shares, counts, _power_of_two(sum(counts)))
        return
    here = [one.past is past for one in shares]
    free = _free({page for one, is_here in zip(shares, here, strict=True) if is_here for page in one.pages.tolist()})
    for one, many, is_here in zip(shares, counts, here, strict=True):
        pages = [page if is_here and page < sum(counts) else next(free) for page in _pages_of(one, many)]
        for at, page in enumerate(pages):
            if not is_here or page != one.pages[at]:
                for to, values in zip(past.cross, one.past.cross, strict=True):
                    _copy_page(values, one, at, to[page])
        one.pages = np.asarray(pages)


def _gather(past: SharedPast, shares: Sequence[Share], counts: Sequence[int], room: int) -> None:
    """Puts all sources into buffers of so many pages, one name after the other."""
    ends = np.cumsum(counts)
    pages = [np.arange(end - many, end) for end, many in zip(ends.tolist(), counts, strict=True)]
    made = []
    for name, first in enumerate(past.cross):
        one = np.zeros((room, first.shape[1], PAGE, first.shape[3]), dtype=first.dtype)
        for share, mine in zip(shares, pages, strict=True):
            for at, page in enumerate(mine.tolist()):
                _copy_page(share.past.cross[name], share, at, one[page])
        made.append(one)
    past.cross = made
    for share, mine in zip(shares, pages, strict=True):
        share.pages = mine


def _pages_needed(share: Share) -> int:
    """The pages that a text's source takes in company."""
    return -(-share.source // PAGE)


def _pages_of(share: Share, many: int) -> list[int]:
    """A text's pages, or as many without a place if its source is not in pages."""
    pages: list[int] = share.pages.tolist()
    return pages if len(pages) == many else [-1] * many


def _copy_page(values: Values, share: Share, at: int, to: Values) -> None:
    """Copies a text's page of so many into a buffer (heads, page, width), from pages or from its source as it came."""
    if values.shape[2] == PAGE:
        to[:] = values[share.pages[at]]
    else:
        part = values[share.pages[0], :, at * PAGE : (at + 1) * PAGE]
        to[:, : part.shape[1]] = part


def _free(used: AbstractSet[int]) -> Iterator[int]:
    """The places that are not used, the lowest first."""
    return (at for at in count() if at not in used)


def _power_of_two(least: int) -> int:
    """The least power of two that is no less."""
    return 1 << (least - 1).bit_length()
