"""The desk of one task: what its checkpoints can promise at this moment, what is decided on it, and who waits.

It gathers the snapshot that the pure decision is made on, twice for a request that has to wait: when it comes, to
refuse at once what cannot be in time, and when its run can begin, to say what was promised then. The live gateway and
the simulator keep the same desk. It runs nothing, knows no replica but by its load, and is told the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from gateway.catalog import Tier
from gateway.costs import Asked
from gateway.deadline import Deadline
from gateway.forecast import Forecaster
from gateway.load import IDLE, Ahead
from gateway.policy import Candidate, Decision, Terms, decide, settled
from gateway.room import Release, Room, Waiter
from gateway.shortlist import Search
from gateway.traffic import Traffic

PRICE_AGE_S = 0.005
"""How old a price may be that a request is decided at when it comes; a run that begins is priced anew."""

_USUAL = 95.0


class Offer:
    """A checkpoint as it is offered for every request alike; its worth is in points of quality.

    `lanes` says how many runs its replicas make at once, and is 0 while none is up; `others_s` how long what other
    gateways sent them would keep it waiting, at an instant.
    """

    __slots__ = (
        "_lanes",
        "_others_s",
        "domain",
        "forecaster",
        "max_batch",
        "name",
        "quality",
        "threads",
        "tier",
        "worth",
    )

    def __init__(
        self,
        name: str,
        tier: Tier,
        quality: float,
        worth: float,
        domain: str | None,
        forecaster: Forecaster,
        lanes: Callable[[], int],
        threads: int = 1,
        others_s: Callable[[float], float] = lambda now_s: 0.0,
    ) -> None:
        self.name, self.tier, self.quality, self.worth, self.domain = name, tier, quality, worth, domain
        self.forecaster = forecaster
        self.max_batch = forecaster.cost.max_batch
        self._lanes = lanes
        self.threads = threads
        self._others_s = others_s

    @property
    def lanes(self) -> int:
        """How many runs its replicas make at once."""
        return self._lanes()

    def others_s(self, now_s: float) -> float:
        """How long what other gateways sent its replicas would keep a request waiting."""
        return self._others_s(now_s)

    def run_s(self, inputs: int, characters: int) -> float:
        """The median core-seconds of one run of so many inputs of so many characters each."""
        return self.forecaster.run_s(inputs, characters)

    def reach_s(self, run_s: float, now_s: float) -> float:
        """What a request takes by the 95th percentile, overhead included, in a run expected to take `run_s`."""
        return self.forecaster.reach_s(run_s, _USUAL, now_s) + self._others_s(now_s)


class Desk:
    """Forecasts, decides and holds the requests of one task."""

    def __init__(
        self, offers: Sequence[Offer], ahead_of: Callable[[str, float], Ahead | None], cores: Callable[[], float]
    ) -> None:
        """`ahead_of` says what is queued at a checkpoint's replicas, None where none is up; `cores` what it may use."""
        self.offers = tuple(sorted(offers, key=lambda offer: (-offer.quality, -offer.worth)))
        self.by_name = {offer.name: offer for offer in self.offers}
        self.traffic = Traffic()
        self.room = Room(self.offers, self.traffic)
        self._ahead_of = ahead_of
        self._cores = cores
        self._place = 0
        self._price = 0.0
        self._priced_s = -math.inf

    def arrived(self, asked: Asked, budget_s: float, now_s: float) -> None:
        """Takes note of an arrival, whatever becomes of it."""
        self.traffic.arrived(now_s, budget_s, asked.characters[0])
        self.room.cores = self._cores()

    def decide(
        self,
        asked: Asked,
        terms: Terms,
        percentile: float,
        deadline: Deadline,
        now_s: float,
        price: float | None = None,
        *,
        every: bool = False,
    ) -> Decision:
        """Forecasts the checkpoints behind all that is more urgent, and decides on that snapshot.

        They are looked at from the best down and no further than can matter, unless `every` one is to be told. Where no
        price is given, it is that of the moment.
        """
        remaining_s = deadline.remaining_s(now_s)
        price = self.price(now_s) if price is None else price
        wait_s = self.room.wait_s(now_s + remaining_s, now_s)
        search: Search | None = None
        candidates: list[Candidate] = []
        ahead_of, waits = self._ahead_of, wait_s > 0  # asked for every candidate: each look-up counts
        for offer in self.offers:
            if search is not None and search.over(offer.quality, offer.worth):
                break
            forecast = None
            name = offer.name
            if (ahead := ahead_of(name, now_s)) is not None:
                if waits and wait_s > ahead.backlog_s:
                    ahead = Ahead(wait_s)
                forecast = offer.forecaster.forecast(asked, ahead, percentile, now_s, remaining_s)
            candidates.append(Candidate(name, offer.tier, offer.quality, offer.domain, forecast, offer.worth))
            if search is not None:
                search.look(candidates[-1])
            elif forecast is not None and forecast.quantile_s <= remaining_s and not every:
                search = Search(candidates, remaining_s, terms, price)
        return decide(candidates, remaining_s, terms, deadline.elapsed_s(now_s), price)

    def price(self, now_s: float) -> float:
        """The congestion price, in points of quality a core-second; not older than `PRICE_AGE_S`."""
        if now_s - self._priced_s > PRICE_AGE_S:
            self._price, self._priced_s = self.room.price(now_s), now_s
        return self._price

    def held(self, asked: Asked, decision: Decision, percentile: float, deadline: Deadline, now_s: float) -> Waiter:
        """The request as it waits. It may have any checkpoint that its terms allow.

        A strict one waits for as long as its optimistic forecast fits, by which it was let in; best effort goes behind
        the others once it is more likely late than not, for it is answered even so.
        """
        self._place += 1
        eligible = [offer for offer in self.offers if decision.terms.allow(offer)]
        texts, characters = len(asked.characters), sum(asked.characters)
        reserve_s = 0.0
        if percentile != _USUAL:
            fastest = min(eligible, key=lambda one: (one.run_s(texts, asked.characters[0]) / one.threads, one.name))
            run_s = fastest.run_s(texts, asked.characters[0])
            reserve_s = fastest.forecaster.reach_s(run_s, percentile, now_s) - fastest.reach_s(run_s, now_s)
        idle = (one.forecaster.forecast(asked, IDLE, percentile, now_s, 0.0) for one in eligible if one.lanes)
        takes_s = (one.least_s if decision.terms.strict else one.service_time_s for one in idle)
        return Waiter(
            place=self._place,
            deadline_s=deadline.at_s - reserve_s,
            characters=characters // texts,
            texts=texts,
            strict=decision.terms.strict,
            eligible=None if len(eligible) == len(self.offers) else frozenset(one.name for one in eligible),
            last_s=deadline.at_s - min(takes_s, default=0.0),
        )

    def settle(
        self, asked: Asked, decision: Decision, release: Release, percentile: float, deadline: Deadline, now_s: float
    ) -> Decision:
        """What was decided when the request's run could begin: which checkpoint, at what price, forecast anew."""
        remaining_s = deadline.remaining_s(now_s)
        inputs = sum(held.texts for held in release.members)
        offer = self.by_name[release.checkpoint]
        ahead = Ahead(offer.others_s(now_s), None, inputs - len(asked.characters))
        forecast = offer.forecaster.forecast(asked, ahead, percentile, now_s, remaining_s)
        chosen = Candidate(offer.name, offer.tier, offer.quality, offer.domain, forecast, offer.worth)
        return settled(decision, chosen, remaining_s, release.price)


def beside_one_another(desks: Collection[Desk]) -> None:
    """Has the desks of one node's tasks leave room for one another when they price its cores."""
    for desk in desks:
        desk.room.neighbours = tuple(other.room for other in desks if other is not desk)
