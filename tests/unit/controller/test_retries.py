"""Writes that are refused, with the clock in hand."""

from __future__ import annotations

import asyncio

import pytest

from tokenbucket.controller.retries import RetryTracker
from tokenbucket.errors import ApiError


class Writes:
    """Attempts at one object's write, which is answered with ``status``; 200 is no refusal."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits_s: list[float] = []
        self.attempts = RetryTracker(self.waits_s.append, lambda: self.now)
        self.status = 422
        self.made = 0

    def make(self) -> bool:
        """Whether it was written."""
        return bool(asyncio.run(self.attempts.make("web-uid", self._write)))

    def pass_time(self) -> None:
        """Until it is due again."""
        self.now += self.waits_s[-1] + 0.001  # floats are not exact

    async def _write(self) -> bool:
        self.made += 1
        if self.status != 200:
            raise ApiError("PATCH", "/web/status", self.status, "denied by policy")
        return True


def test_what_is_refused_is_made_later_each_time() -> None:
    """It may be refused for ever."""
    writes = Writes()
    for _ in range(8):
        assert not writes.make()
        assert not writes.make()
        writes.pass_time()
    assert writes.made == len(writes.waits_s) == 8
    assert writes.waits_s[0] <= 1 < writes.waits_s[3] < writes.waits_s[5]
    assert max(writes.waits_s) <= 30


def test_a_refusal_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """With what was refused and why; another answer is news."""
    writes = Writes()
    for status in (422, 422, 403, 403):
        writes.status = status
        writes.make()
        writes.pass_time()
    errors = [record.__dict__["error"] for record in caplog.records]
    assert errors == [f"PATCH /web/status: {status}: denied by policy" for status in (422, 403)]


def test_a_write_that_was_made_begins_anew() -> None:
    """What was refused long ago makes nobody wait."""
    writes = Writes()
    for _ in range(6):
        writes.make()
        writes.pass_time()
    writes.status = 200
    assert writes.make()
    writes.status = 422
    writes.make()
    assert writes.waits_s[-1] <= 1


def test_an_object_that_is_no_more_is_forgotten() -> None:
    """A controller runs for months."""
    writes = Writes()
    writes.make()
    writes.attempts.keep({"other-uid"})
    writes.make()
    assert writes.made == 2


@pytest.mark.parametrize("status", [0, 401, 429, 502, 503])
def test_an_answer_that_is_not_about_the_object_is_not_held_against_it(status: int) -> None:
    """Whoever asks has to stop for now, and may then go on with any object."""
    writes = Writes()
    writes.status = status
    with pytest.raises(ApiError):
        writes.make()
    writes.status = 200
    assert writes.make()
