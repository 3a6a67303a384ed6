"""The content of a store, for any order of lists and events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tokenbucket.apiserver.store import Store


def document(name: str, version: int, content: str = "") -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": name, "resourceVersion": str(version)},
        "content": content,
    }


class Listener:
    """A store of values, and the number of changes that it reported."""

    def __init__(self) -> None:
        self.times = 0
        self.store: Store[str] = Store(self._parse, self._changed)

    def _parse(self, document: Mapping[str, Any]) -> str | None:
        return document["content"] or None

    def _changed(self) -> None:
        self.times += 1

    def contents(self) -> set[str]:
        return set(self.store.values())


def listed(*documents: dict[str, Any], version: int = 10) -> Listener:
    """Return a store after one list."""
    listener = Listener()
    listener.store.replace(list(documents), version)
    listener.times = 0
    return listener


def test_a_list_replaces_the_content() -> None:
    """Remove missing objects, add new ones, and notify once."""
    listener = listed(document("a", 5, "a"), document("b", 6, "b"))
    listener.store.replace([document("b", 6, "b"), document("c", 11, "c")], 12)
    assert listener.contents() == {"b", "c"}
    assert listener.times == 1


def test_the_first_list_notifies_even_if_it_is_empty() -> None:
    """Know nothing before it."""
    listener = Listener()
    assert not listener.store.synced.is_set()
    listener.store.replace([], 10)
    assert listener.store.synced.is_set()
    assert listener.times == 1
    assert not listener.store.doubtful


def test_an_older_event_never_overwrites_a_newer_object() -> None:
    """Keep an object that was created again after a deletion."""
    listener = listed(document("a", 5, "new"))
    listener.store.put(document("a", 4, "old"))
    listener.store.remove(document("a", 4, "old"))
    assert listener.contents() == {"new"}
    assert listener.times == 0


def test_an_older_list_never_overwrites_newer_events() -> None:
    """Keep objects that are newer than the list."""
    listener = listed(document("a", 5, "old"))
    listener.store.put(document("a", 15, "new"))
    listener.store.put(document("b", 16, "b"))
    listener.store.replace([document("a", 5, "old")], 12)
    assert listener.contents() == {"new", "b"}


def test_an_older_list_never_restores_a_removed_object() -> None:
    """Wait until the object is created again."""
    listener = listed(document("a", 5, "a"), document("b", 6, "b"))
    listener.store.remove(document("a", 15, "a"))
    listener.store.replace([document("a", 5, "a"), document("b", 6, "b")], 12)
    assert listener.contents() == {"b"}
    listener.store.put(document("a", 17, "again"))
    assert listener.contents() == {"again", "b"}


def test_an_older_event_never_restores_an_object_that_a_list_lacks() -> None:
    """Deliver an event late that was sent before the list."""
    listener = listed(document("a", 5, "a"), version=10)
    listener.store.put(document("b", 9, "b"))
    assert listener.contents() == {"a"}


def test_an_empty_list_takes_effect_if_a_second_one_is_empty_too() -> None:
    """Distrust one list, which can come from a cache that is not filled yet."""
    listener = listed(document("a", 5, "a"))
    listener.store.replace([], 11)
    assert listener.store.doubtful
    assert listener.contents() == {"a"}
    assert listener.times == 0
    listener.store.replace([], 12)
    assert not listener.store.doubtful
    assert listener.contents() == set()
    assert listener.times == 1


def test_a_list_with_objects_ends_the_doubt() -> None:
    """Doubt the next empty list again."""
    listener = listed(document("a", 5, "a"))
    listener.store.replace([], 11)
    listener.store.replace([document("a", 5, "a")], 12)
    assert not listener.store.doubtful
    listener.store.replace([], 13)
    assert listener.store.doubtful
    assert listener.contents() == {"a"}


def test_a_listener_is_called_for_changes_only() -> None:
    """Ignore equal values of new versions. Report removed objects."""
    listener = listed(document("a", 5, "a"))
    listener.store.put(document("a", 5, "a"))
    listener.store.put(document("a", 15, "a"))
    listener.store.replace([document("a", 15, "a")], 16)
    listener.store.remove(document("other", 17))
    assert listener.times == 0
    listener.store.remove(document("a", 18, "a"))
    assert listener.times == 1


def test_objects_without_content_are_neither_kept_nor_reported() -> None:
    """Accept ``None`` from the parser."""
    listener = listed(document("a", 5))
    listener.store.put(document("a", 15))
    assert listener.contents() == set()
    assert listener.store.get("shop", "a") is None
    assert listener.times == 0


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """Generate changes of three objects, in order, with the object after each."""
    events: list[tuple[str, dict[str, Any]]] = []
    there: set[str] = set()
    for version in range(1, draw(st.integers(1, 12)) + 1):
        name = draw(st.sampled_from("abc"))
        removed = name in there and draw(st.booleans())
        there ^= {name} if removed or name not in there else set()
        events.append(("DELETED" if removed else "MODIFIED", document(name, version, f"{name}{version}")))
    return events


def state(history: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the objects after these changes."""
    last = {event["metadata"]["name"]: (kind, event) for kind, event in history}
    return [event for kind, event in last.values() if kind != "DELETED"]


@given(histories(), st.data())
def test_late_lists_and_repeated_events_end_in_the_state_of_the_server(
    history: list[tuple[str, dict[str, Any]]], data: st.DataObject
) -> None:
    """Deliver events in order, some twice, with lists of any age between them."""
    listener = Listener()
    listener.store.replace([], 0)
    for now, (kind, event) in enumerate(history, 1):
        (listener.store.remove if kind == "DELETED" else listener.store.put)(event)
        then = data.draw(st.integers(0, now))
        listener.store.replace(state(history[:then]), then)
        again_kind, again = history[data.draw(st.integers(0, now - 1))]
        (listener.store.remove if again_kind == "DELETED" else listener.store.put)(again)
        assert listener.contents() == {each["content"] for each in state(history[:now])}


def test_a_restored_storage_replaces_all_objects_and_older_lists_alone_do_not() -> None:
    """Compare the version of the storage, because another API server can only be late."""
    told = listed(document("a", 90, "new"), document("b", 91, "b"), version=100)
    backup = [document("a", 40, "old"), document("c", 41, "c")]
    for _ in range(3):
        told.store.replace(backup, 50)
        assert told.store.older
        assert told.contents() == {"new", "b"}
    assert not told.store.restored(100, 100)
    assert told.store.restored(55, 100)
    assert told.store.older
    told.store.replace(backup, 55)
    assert told.contents() == {"old", "c"}
    assert (told.store.version, told.store.older) == (55, False)


def test_a_list_decides_about_objects_that_the_storage_has_forgotten() -> None:
    """Accept a list that is newer than the object, from a storage that was restored and has grown since."""
    told = listed(document("a", 90, "new"), version=90)
    told.store.replace([document("a", 40, "old")], 120)
    assert told.contents() == {"old"}


def test_versions_only_increase() -> None:
    """Record the newest version, and the newest one that changed a value."""
    told = listed(document("a", 5, "a"), version=10)
    assert (told.store.version, told.store.changed_at) == (10, 5)
    told.store.put(document("a", 12, "a"))
    assert (told.store.version, told.store.changed_at) == (12, 5)
    told.store.put(document("b", 13, "b"))
    told.store.replace([document("a", 12, "a"), document("b", 13, "b")], 20)
    told.store.remove(document("b", 19))
    assert (told.store.version, told.store.changed_at) == (20, 13)


def test_a_merge_receives_the_previous_value() -> None:
    """Store its result."""
    store: Store[str] = Store(
        lambda document: document["content"], merge=lambda before, now: f"{before}>{now}"
    )
    store.put(document("a", 1, "a"))
    store.put(document("a", 2, "b"))
    assert store.values() == ("None>a>b",)


def test_a_list_in_pages_takes_effect_with_its_last_page() -> None:
    """Keep objects that earlier pages lack."""
    listener = listed(document("a", 5, "a"), document("b", 6, "b"), document("gone", 7, "gone"))
    listener.store.replace([document("a", 11, "new")], 12, last=False)
    assert listener.contents() == {"new", "b", "gone"}
    listener.store.replace([document("b", 6, "b")], 12, first=False)
    assert listener.contents() == {"new", "b"}


def test_a_store_is_synced_after_the_last_page() -> None:
    store: Store[str] = Store(lambda document: str(document["content"]))
    store.replace([document("a", 5, "a")], 10, last=False)
    assert not store.synced.is_set()
    store.replace([], 10, first=False)
    assert store.synced.is_set()
    assert store.values() == ("a",)


def test_a_last_page_without_its_first_pages_removes_nothing() -> None:
    """Complete another list in between, or start the process in the middle of a list."""
    listener = listed(document("a", 5, "a"), document("b", 6, "b"))
    listener.store.replace([document("a", 5, "a")], 12, last=False)
    listener.store.replace([document("a", 5, "a"), document("b", 6, "b")], 13)
    listener.store.replace([document("c", 11, "c")], 12, first=False)
    assert listener.contents() == {"a", "b"}


def test_pages_with_different_versions_fill_the_store_and_remove_nothing() -> None:
    """Leave missing objects to the watch. API servers should not send such pages."""
    store: Store[str] = Store(lambda document: str(document["content"]))
    for _ in range(2):
        store.replace([document("a", 5, "a")], 10, last=False)
        store.replace([document("b", 11, "b")], 12, first=False)
        assert store.synced.is_set()
    assert set(store.values()) == {"a", "b"}


def test_two_lists_of_one_version_whose_pages_are_mixed_remove_nothing() -> None:
    """Expect the same objects in both."""
    listener = listed(*(document(name, 5, name) for name in "abc"))
    pages = [[document(name, 5, name)] for name in "abc"]
    for number in (0, 1, 0, 2):
        listener.store.replace(pages[number], 12, first=number == 0, last=number == 2)
    assert listener.contents() == {"a", "b", "c"}
