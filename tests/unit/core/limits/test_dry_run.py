"""The effect of a limit in Observe mode if it were enforced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tokenbucket.core.limits import dry_run
from tokenbucket.core.limits.slot import SlotConfig
from tokenbucket.core.limits.stats import Stats

STATS = Stats(conform_bytes=9_000, too_fast_bytes=1_000, delayed_bytes=880, forwarded_bytes=120)
DROP = SlotConfig(bits_per_s=10**6, observe=True)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (DROP, "would drop 1.2 %"),
        (replace(DROP, dscp=10), "would mark 1.2 %"),
        (replace(DROP, max_delay_q=1), "would delay 8.8 %, drop 1.2 %"),
        (replace(DROP, observe=False), ""),
    ],
)
def test_the_effect_is_that_of_the_action(config: SlotConfig, words: str) -> None:
    assert dry_run.describe(config, STATS) == words


def test_there_is_no_effect_without_traffic() -> None:
    assert dry_run.shares(DROP, Stats()) == {}
