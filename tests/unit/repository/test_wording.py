"""The check of words in docs, CRDs and Helm values."""

from __future__ import annotations

import pytest
from hack import wording

PLAIN = """\
# What a heading contains does not count

The agent reports each pod that it does not limit. What do you need? A kernel with `what is in force`.
Decide what to do, and [look](docs/what.md). Access is to the node.

```sh
echo what the agent says is in force anew
```
"""


def problems(text: str, reader=wording.markdown) -> list[str]:
    _, found = wording.check("docs", [wording.Text("page.md", reader(text))])
    return found


def test_plain_text_passes() -> None:
    """Ignore headings, code, questions and indirect questions."""
    assert problems(PLAIN) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("what as a noun", "The filter drops what exceeds."),
        ("says, said", "Status says so."),
        ("tells, told", "The agent is told."),
        ("whoever, nobody, somebody, everybody", "Nobody reads the key."),
        ("in force", "The limit is in\nforce."),
        ("is to, are to", "A queue that is to go."),
        ("anew", "It starts anew."),
        ("of ours", "A filter of ours."),
    ],
)
def test_each_banned_pattern_fails_with_its_line(name: str, sentence: str) -> None:
    heading, hit = problems(f"Plain.\n\n{sentence}\n")
    assert (f'"{name}"' in heading, hit.startswith("page.md:3: ")) == (True, True)


def test_limits_are_rates() -> None:
    """Accept one occurrence in two thousand words if the limit is one in a thousand."""
    assert problems("The filter drops what exceeds. " + "plain " * 2000) == []


def test_crds_are_measured_by_their_descriptions() -> None:
    crd = (
        "names: {what: says}\nx:\n- description: >-\n    Pods where it is\n    in force.\n- message: Plain.\n"
    )
    assert problems(crd, wording.crds)[1].startswith("page.md:5: ")


def test_values_are_measured_by_their_comments() -> None:
    assert problems("a: what is in force anew\n# -- Plain.\nb: 1\n", wording.values) == []
    assert problems("b: 1\n# -- Begins anew.\n", wording.values)[1].startswith("page.md:2: ")
