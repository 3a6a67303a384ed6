"""Requests for live figures: valid ones survive a round trip, and each invalid one has a field and a fix."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenbucket.core.api.live import (
    MOST_BYTES,
    MOST_PEERS,
    MOST_PODS,
    LiveRequest,
    parse_request,
)
from tokenbucket.errors import SpecError

UID = "0f6a1de2-6f0c-4b7a-9d3e-2f1b7c9a5e11"


@given(st.sets(st.uuids(), min_size=1, max_size=MOST_PODS), st.booleans())
def test_a_request_survives_its_document(uids: set[uuid.UUID], minute: bool) -> None:  # noqa: FBT001
    request = LiveRequest(frozenset(map(str, uids)), minute=minute)
    assert parse_request(json.dumps(request.to_document()).encode()) == request


def test_the_largest_request_is_within_the_size_of_requests() -> None:
    request = LiveRequest(frozenset(str(uuid.uuid4()) for _ in range(MOST_PODS)))
    assert len(json.dumps(request.to_document())) <= MOST_BYTES


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ("nothing", ""),
        (["a"], ""),
        ({}, "uids"),
        ({"uids": UID}, "uids"),
        ({"uids": []}, "uids"),
        ({"uids": [UID, 1]}, "uids"),
        ({"uids": [""]}, "uids"),  # pods of a folder have no uid
        ({"uids": ["*"]}, "uids"),
        ({"uids": [f"{UID}\n"]}, "uids"),
        ({"uids": [str(uuid.uuid4()) for _ in range(MOST_PODS + 1)]}, "uids"),
        ({"uids": [UID], "lastMinute": "no"}, "lastMinute"),
        ({"uids": [UID], "peers": -1}, "peers"),
        ({"uids": [UID], "peers": True}, "peers"),
        ({"uids": [UID], "peers": MOST_PEERS + 1}, "peers"),
        ({"uids": [UID, str(uuid.uuid4())], "peers": 1}, "uids"),
    ],
)
def test_an_invalid_request_is_rejected_with_its_field(document: Any, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_request(json.dumps(document).encode())
    (problem,) = caught.value.problems
    assert problem.field == field
    assert str(caught.value).startswith("request: ")


@given(st.binary(max_size=200))
def test_no_content_causes_another_error(content: bytes) -> None:
    """Reject or accept any content, such as deeply nested or no JSON."""
    for each in (content, b"[" * 5000 + content):
        try:
            parse_request(each)
        except SpecError:
            continue
