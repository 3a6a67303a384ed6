"""Compare the traffic that pods receive while a test runs with the limits that the test declares."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import IO, Any

from tests.netns.enforced import Declaration, Line, Span, spans
from tests.netns.lab import Pod
from tests.observer import PERIOD_S, Sample, open_counters, take, total
from tokenbucket.core.api.parse import parse_policy
from tokenbucket.core.api.policy import Direction
from tokenbucket.errors import SpecError


class Recorder:
    """Read the counters in a thread, and store the policies that the test writes."""

    def __init__(self, pods: Mapping[str, Pod]) -> None:
        self._pods = pods
        self._counters: dict[str, tuple[Pod, list[IO[str]]]] = {}
        self._rounds: list[dict[str, Sample]] = []
        self._declared: list[Declaration] = []
        self._files: dict[str, set[str]] = {}
        self._wall_s = time.time() - time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def declare(self, file: str, documents: Iterable[Any]) -> None:
        """Store the valid policies of a file. An invalid policy changes nothing, as in the agent."""
        time_s, before = time.monotonic(), self._files.get(file, set())
        policies = [
            each for each in documents if isinstance(each, dict) and each["kind"] == "TokenBucketPolicy"
        ]
        self._files[file] = {each["metadata"]["name"] for each in policies}
        for document in policies:
            with contextlib.suppress(SpecError):
                self._declared.append(
                    Declaration(time_s, document["metadata"]["name"], parse_policy(document))
                )
        self._declared += [Declaration(time_s, name, None) for name in before - self._files[file]]

    def stop(self) -> None:
        """Take the last samples."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join()
        self._round()
        for name in tuple(self._counters):
            self._close(name)

    def verify(self, log: Iterable[Line]) -> None:
        """Assert that no limit was exceeded while it was declared, and enforced as the agent reported."""
        excess = [
            f"{span.pod} {span.direction}: {text}"
            for span in spans(log, self._declared, self._wall_s)
            if (text := span.bound.exceeded(self._samples(span)))
        ]
        assert not excess, excess

    def _samples(self, span: Span) -> list[Sample]:
        """Return the traffic that the pod receives, or that the other pods receive from it."""
        rounds = [each for each in self._rounds if each and _within(span, each.values())]
        # Packets that passed the hook before the span have arrived at the second sample.
        names = set.intersection(*map(set, rounds[1:])) if rounds[1:] else set()
        names = names & {span.pod} if span.direction is Direction.INGRESS else names - {span.pod}
        return [total([each[name] for name in names]) for each in rounds[1:]] if names else []

    def _run(self) -> None:
        while not self._stopping.wait(PERIOD_S):
            self._round()

    def _round(self) -> None:
        pods = dict(self._pods)
        for name, (pod, _) in tuple(self._counters.items()):
            if pods.get(name) is not pod:
                self._close(name)
        for name in pods.keys() - self._counters.keys():
            with contextlib.suppress(FileNotFoundError):  # the test has deleted the pod
                self._counters[name] = pods[name], pods[name].inside(open_counters)
        self._rounds.append({name: take(files) for name, (_, files) in self._counters.items()})

    def _close(self, name: str) -> None:
        for file in self._counters.pop(name)[1]:
            file.close()


def _within(span: Span, samples: Collection[Sample]) -> bool:
    after_s, before_s = min(each.after_s for each in samples), max(each.before_s for each in samples)
    return span.start_s <= after_s and before_s <= span.end_s
