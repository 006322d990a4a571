"""Laws of autoscaling: more load never means fewer replicas, no load means the least, and noise changes nothing."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field

import pytest
from by_hand import entry_of
from hypothesis import given
from hypothesis import strategies as st

from deployments.serve.autoscaling import (
    BACKLOG_S,
    BUSY_SHARE,
    SPARE_FACTOR,
    BusyShare,
    FollowLoad,
    autoscaling_config,
    replicas_for,
)
from gateway.catalogs.catalog import Autoscaling, CatalogEntry
from gateway.model.tier import Tier

FOLLOW = FollowLoad(target_busy_share=0.5, target_backlog_s=0.1)

loads = st.floats(0, 50)
numbers = st.integers(1, 64)


@dataclass
class Context:
    """What the policy reads of Serve's context."""

    target_num_replicas: int
    aggregated_metrics: dict[str, dict[str, float]] | None = field(default_factory=dict)


def reports(*each: tuple[float, float]) -> dict[str, dict[str, float]]:
    """The reports of the replicas: busy share and backlog of each."""
    return {
        BUSY_SHARE: {str(at): busy for at, (busy, _) in enumerate(each)},
        BACKLOG_S: {str(at): backlog_s for at, (_, backlog_s) in enumerate(each)},
    }


def asked(current: int, *each: tuple[float, float]) -> int:
    """How many replicas the policy wants, given the report of each current one."""
    number, remembered = FOLLOW(Context(current, reports(*each)))  # type: ignore[arg-type]
    assert remembered == {}
    return number


@given(numbers, loads, loads)
def test_more_load_never_means_fewer_replicas(current: int, one: float, other: float) -> None:
    """A greater load asks for at least as many replicas, whatever their number is now."""
    less, more = sorted((one, other))
    assert replicas_for(current, less) <= replicas_for(current, more)


@given(numbers, loads)
def test_there_are_enough_for_the_load(current: int, load: float) -> None:
    """The replicas asked for carry the load, and there is at least one."""
    assert replicas_for(current, load) >= max(load, 1)


@given(numbers)
def test_without_load_one_is_enough(current: int) -> None:
    """An idle checkpoint asks for one replica; Serve then keeps the least number of the catalog."""
    assert replicas_for(current, 0.0) == 1


@given(numbers, st.floats(0.5, 40), st.lists(st.floats(0.925, 1.075), min_size=1, max_size=30))
def test_noise_starts_no_replica_that_it_retires_again(current: int, load: float, noise: list[float]) -> None:
    """A load that varies by a few percent changes the number of replicas in one direction at most."""
    followed = [current]
    for factor in noise:
        followed.append(replicas_for(followed[-1], load * factor))
    assert followed in (sorted(followed), sorted(followed, reverse=True))
    assert SPARE_FACTOR > 1.075 / 0.925


def test_a_replica_is_retired_only_where_there_is_room_to_spare() -> None:
    """A replica is retired only with capacity to spare, since otherwise the slightest rise needs it again."""
    assert replicas_for(2, 0.95) == 2
    assert replicas_for(2, 0.8) == 1


@pytest.mark.parametrize(
    ("current", "each", "wanted"),
    [
        (1, [(0.5, 0.0)], 1),
        (1, [(0.6, 0.0)], 2),
        (1, [(0.1, 0.35)], 4),
        (2, [(1.0, 0.0), (1.0, 0.0)], 4),
        (4, [(0.0, 0.0)] * 4, 1),
    ],
)
def test_busy_time_and_backlog_each_ask_for_replicas(
    current: int, each: list[tuple[float, float]], wanted: int
) -> None:
    """Busy share and backlog are summed over the replicas, and the more demanding one decides."""
    assert asked(current, *each) == wanted


def test_where_nothing_was_reported_the_number_stays() -> None:
    """Without reports, as after a restart of the controller, the number of replicas stays."""
    reported: tuple[dict[str, dict[str, float]] | None, ...] = (None, {}, {BUSY_SHARE: {}})
    for nothing in reported:
        assert FOLLOW(Context(5, nothing)) == (5, {})  # type: ignore[arg-type]


def test_the_busy_share_is_of_the_time_since_the_last_look() -> None:
    """The busy share is engine time per elapsed time and slot since the last look, at most 1."""
    now_s = [0.0]
    busy = BusyShare(lambda: now_s[0], slots=2)
    shares = [busy.since_last(5.0)]
    for now_s[0], busy_s in ((10.0, 5.0), (20.0, 15.0), (30.0, 95.0), (30.0, 96.0), (40.0, 96.0)):
        shares.append(busy.since_last(busy_s))
    assert shares == [0.0, 0.0, 0.5, 1.0, 0.0, 0.0]


def entry(autoscaling: Autoscaling | None) -> CatalogEntry:
    """A checkpoint with this autoscaling."""
    return entry_of("one", "classify", Tier.REALTIME, family="BERT", source="starter:one", autoscaling=autoscaling)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own warning, on import
def test_serve_is_told_what_the_catalog_says() -> None:
    """Serve gets the catalog's bounds and delays, and our policy with its targets, which it can pickle."""
    assert autoscaling_config(entry(None), 1.0, "one") is None
    wished = Autoscaling(max_replicas=3, target_backlog_ms=50.0, upscale_delay_s=1.0, downscale_delay_s=7.0)
    config = autoscaling_config(entry(wished), 1.0, "one")
    assert config is not None
    assert (config.min_replicas, config.max_replicas) == (1, 3)
    assert (config.upscale_delay_s, config.downscale_delay_s) == (1.0, 7.0)
    policy = config.policy.get_policy()(**config.policy.policy_kwargs)
    assert (policy.target_busy_share, policy.target_backlog_s) == (0.6, 0.05)
    pickled = config.policy.get_serialized_policy_def()
    assert pickled is not None
    again = pickle.loads(pickled)(**config.policy.policy_kwargs)
    assert again(Context(1, reports((1.0, 0.0)))) == (2, {})
    unsaid = autoscaling_config(entry(Autoscaling(max_replicas=3)), 10.0, "two")
    assert unsaid is not None
    assert unsaid.policy.policy_kwargs["target_backlog_s"] == 5.0
