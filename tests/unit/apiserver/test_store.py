"""What is believed of the API server, whatever order its lists and events arrive in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tokenbucket.apiserver.store import Store


def document(name: str, version: int, says: str = "") -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": name, "resourceVersion": str(version)}, "says": says}


class Told:
    """A store of what each object says, and how often it told of a change."""

    def __init__(self) -> None:
        self.times = 0
        self.store: Store[str] = Store(self._parse, self._changed)

    def _parse(self, document: Mapping[str, Any]) -> str | None:
        return document["says"] or None

    def _changed(self) -> None:
        self.times += 1

    def says(self) -> set[str]:
        return set(self.store.values())


def listed(*documents: dict[str, Any], version: int = 10) -> Told:
    """A store that has taken in one list."""
    told = Told()
    told.store.replace(list(documents), version)
    told.times = 0
    return told


def test_a_list_is_all_there_is() -> None:
    """What it lacks has gone, what it has is there, and one who listens is told once."""
    told = listed(document("a", 5, "a"), document("b", 6, "b"))
    told.store.replace([document("b", 6, "b"), document("c", 11, "c")], 12)
    assert told.says() == {"b", "c"}
    assert told.times == 1


def test_the_first_list_tells_also_that_there_is_nothing() -> None:
    """Until then nothing is known, and nothing must be concluded."""
    told = Told()
    assert not told.store.synced.is_set()
    told.store.replace([], 10)
    assert told.store.synced.is_set()
    assert told.times == 1
    assert not told.store.doubtful


def test_an_older_event_never_overwrites_a_newer_object() -> None:
    """Nor removes it: it has been made anew since."""
    told = listed(document("a", 5, "new"))
    told.store.put(document("a", 4, "old"))
    told.store.remove(document("a", 4, "old"))
    assert told.says() == {"new"}
    assert told.times == 0


def test_an_older_list_never_overwrites_what_an_event_has_said() -> None:
    """What came after the list stays, changed or new."""
    told = listed(document("a", 5, "old"))
    told.store.put(document("a", 15, "new"))
    told.store.put(document("b", 16, "b"))
    told.store.replace([document("a", 5, "old")], 12)
    assert told.says() == {"new", "b"}


def test_an_older_list_never_brings_back_what_an_event_has_removed() -> None:
    """It may have been long on its way; the object stays gone until it is made anew."""
    told = listed(document("a", 5, "a"), document("b", 6, "b"))
    told.store.remove(document("a", 15, "a"))
    told.store.replace([document("a", 5, "a"), document("b", 6, "b")], 12)
    assert told.says() == {"b"}
    told.store.put(document("a", 17, "again"))
    assert told.says() == {"again", "b"}


def test_an_older_event_never_brings_back_what_a_list_lacks() -> None:
    """An event that was on its way while the list was read."""
    told = listed(document("a", 5, "a"), version=10)
    told.store.put(document("b", 9, "b"))
    assert told.says() == {"a"}


def test_an_empty_list_is_believed_when_a_second_one_says_the_same() -> None:
    """One alone may be a mistake of a cache that is being filled."""
    told = listed(document("a", 5, "a"))
    told.store.replace([], 11)
    assert told.store.doubtful
    assert told.says() == {"a"}
    assert told.times == 0
    told.store.replace([], 12)
    assert not told.store.doubtful
    assert told.says() == set()
    assert told.times == 1


def test_a_doubt_ends_with_a_list_that_has_something() -> None:
    """The next empty one is doubtful again."""
    told = listed(document("a", 5, "a"))
    told.store.replace([], 11)
    told.store.replace([document("a", 5, "a")], 12)
    assert not told.store.doubtful
    told.store.replace([], 13)
    assert told.store.doubtful
    assert told.says() == {"a"}


def test_one_who_listens_is_told_of_changes_only() -> None:
    """The same again, or a new version that says the same, is none; that an object goes is one."""
    told = listed(document("a", 5, "a"))
    told.store.put(document("a", 5, "a"))
    told.store.put(document("a", 15, "a"))
    told.store.replace([document("a", 15, "a")], 16)
    told.store.remove(document("other", 17))
    assert told.times == 0
    told.store.remove(document("a", 18, "a"))
    assert told.times == 1


def test_what_is_of_no_interest_is_neither_kept_nor_told() -> None:
    """The parser says ``None``."""
    told = listed(document("a", 5))
    told.store.put(document("a", 15))
    assert told.says() == set()
    assert told.store.get("shop", "a") is None
    assert told.times == 0


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """Changes of three objects, in order: each what happened, and the object after it."""
    events: list[tuple[str, dict[str, Any]]] = []
    there: set[str] = set()
    for version in range(1, draw(st.integers(1, 12)) + 1):
        name = draw(st.sampled_from("abc"))
        removed = name in there and draw(st.booleans())
        there ^= {name} if removed or name not in there else set()
        events.append(("DELETED" if removed else "MODIFIED", document(name, version, f"{name}{version}")))
    return events


def state(history: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The objects after these changes."""
    last = {event["metadata"]["name"]: (kind, event) for kind, event in history}
    return [event for kind, event in last.values() if kind != "DELETED"]


@given(histories(), st.data())
def test_late_lists_and_repeated_events_end_in_what_the_server_has(
    history: list[tuple[str, dict[str, Any]]], data: st.DataObject
) -> None:
    """Events of a watch in order, some of them twice, and between them lists of any age."""
    told = Told()
    told.store.replace([], 0)
    for now, (kind, event) in enumerate(history, 1):
        (told.store.remove if kind == "DELETED" else told.store.put)(event)
        then = data.draw(st.integers(0, now))
        told.store.replace(state(history[:then]), then)
        again_kind, again = history[data.draw(st.integers(0, now - 1))]
        (told.store.remove if again_kind == "DELETED" else told.store.put)(again)
        assert told.says() == {each["says"] for each in state(history[:now])}
