"""Runs that texts share: of equal texts under way one is written, and the others go along with it.

A text goes along where it would write the same tokens alone: equal likeness, equal source, equal search. It keeps its
own deadline, and ends with what the run has written by then. A text that holds no keys and values of its own follows;
where it cannot, it parts, and is a text as any other from then on. Who has the engine, and who inherits a run, is the
time slicer's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from deployments.engines.base import Decoder, Logits, Pending
from deployments.engines.prefixes import Restored
from gateway.model.deadline import Clock


class Search(Protocol):
    """Chooses the tokens of a text, step by step."""

    @property
    def pending(self) -> Pending:
        """What the decoder's next step takes. Raises RuntimeError once the search is done."""

    @property
    def done(self) -> bool:
        """True if no further step is to follow."""

    @property
    def steps(self) -> int:
        """How many steps were fed."""

    def feed(self, logits: Logits) -> None:
        """Takes the logits (rows, vocabulary) of the pending step."""


@dataclass(frozen=True, slots=True)
class Given:
    """How a step was taken: by so many runs, of so many rows together, in what time."""

    runs: int
    rows: int
    took_s: float


SearchT = TypeVar("SearchT", bound=Search)


class Run(Generic[SearchT]):
    """One text that is being written, for one job or for several of equal texts. One thread at a time steps it.

    `step_s` is what its next step should take alone, and `restored` tokens of its text were not read anew. Others read
    `search` while it `is_still`. A run that is not `sound` had a step that failed.
    """

    def __init__(self, decoder: Decoder, search: SearchT, step_s: float, alone_s: Callable[[Given], float]) -> None:
        """Takes a decoder whose first step was fed to the search, and what says how long a step had taken alone."""
        self.search = search
        self.step_s = step_s
        self.sound = True
        self.restored = decoder.restored if isinstance(decoder, Restored) else 0
        self._decoder: Decoder | None = None if search.done else decoder
        self._alone_s = alone_s
        self._lock = RLock()

    @property
    def decoder(self) -> Decoder:
        """What runs its next step. Raises RuntimeError once it is done."""
        if self._decoder is None:
            raise RuntimeError("the run is done")
        return self._decoder

    @property
    def done(self) -> bool:
        """True if no further step is to follow."""
        return self.search.done

    @property
    def rows(self) -> int:
        """The rows of the next step."""
        return len(self.search.pending[0])

    @contextmanager
    def is_still(self) -> Iterator[SearchT]:
        """Keeps others from feeding the search while it is read."""
        with self._lock:
            yield self.search

    def step(self, clock: Clock) -> Given:
        """Runs the next step alone. Blocking. Raises what the engine raises, and RuntimeError after a step that failed.

        The decoder may have taken a half of that one: no step after it could be trusted.
        """
        if not self.sound:
            raise RuntimeError("an earlier step of the run failed")
        began, rows = clock(), self.rows
        self.sound = False
        logits = self.decoder.step(*self.search.pending)
        return self.feed(logits, Given(1, rows, clock() - began))

    def feed(self, logits: Logits, given: Given) -> Given:
        """Takes the logits of the next step, and how it was taken, which it gives back."""
        self.sound = False
        with self._lock:
            self.search.feed(logits)
            self.step_s += 0.5 * (self._alone_s(given) - self.step_s)
            if self.search.done:
                self._decoder = None  # whoever still reads the run needs no keys and values
        self.sound = True
        return given


@dataclass(slots=True, eq=False)
class Likeness:
    """What a text has in common with those that are equal; `key` None is like nothing.

    While it `follows`, it holds no keys and values of its own, and may only go along with an equal text. It has
    `joined` once it does.
    """

    key: Hashable | None = None
    follows: bool = False
    joined: bool = False

    def parted(self) -> None:
        """Makes the text like no other."""
        self.key, self.follows = None, False


class Parted:
    """What a text yields that follows, and finds no run to go along with."""


PARTED = Parted()


class SharedRuns(Generic[SearchT]):
    """The runs of one checkpoint that are under way, by likeness and by what they write. It keeps none alive."""

    def __init__(self) -> None:
        self._under_way: WeakValueDictionary[Any, Run[SearchT]] = WeakValueDictionary()

    def joined(self, likeness: Likeness, what: Hashable) -> Run[SearchT] | None:
        """The run of an equal text that writes just this; None if there is none."""
        run = None if likeness.key is None else self._under_way.get((likeness.key, what))
        if run is None or not run.sound:
            return None
        likeness.joined = True
        return run

    def begun(self, likeness: Likeness, what: Hashable, run: Run[SearchT]) -> Run[SearchT]:
        """Lets equal texts find a run that has begun."""
        if likeness.key is not None:
            self._under_way[likeness.key, what] = run
        return run
