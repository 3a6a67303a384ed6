"""Arguments of the commands on a node."""

from __future__ import annotations

import pytest

from tokenbucket.cli import main
from tokenbucket.errors import ExitCode


@pytest.mark.parametrize(
    "arguments",
    [
        ["detach", "--dev", "\udcff"],
        ["inspect", "--dev", "\udcff"],
        ["inspect", "shop/\udcff"],
        ["attach", "--direction", "egress", "--rate", "1M", "--dev", "\udcff"],
        ["attach", "--direction", "egress", "--rate", "1M", "--dev", "eth1", "--netns", "a\nb"],
        ["validate", "\udcff.yaml"],
    ],
)
def test_an_argument_that_is_not_text_is_an_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Give bytes that are not UTF-8, which no request can contain, and a line break."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == ExitCode.INVALID
    assert "must be printable UTF-8 text" in capsys.readouterr().err
