"""``python -m tests.e2e.kind`` builds what the cache lacks, and prints variables for hack/e2e-kind.sh."""

from __future__ import annotations

import os
import shlex
import sys

from cluster.binaries import binaries, kind_command
from cluster.errors import ClusterError
from cluster.images import CLIENT_TAG, standard_images
from tests.e2e.image import layout_image, operator_image
from tests.e2e.kind.parts import NODE_TAG, engine, node_image


def say(text: str) -> None:
    """Print one line that is no variable."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Return the exit status."""
    try:
        programs = binaries(say)
        client = next(image for image in standard_images(programs, say) if image.tag == CLIENT_TAG)
        variables = {
            "ENGINE": engine(say),
            "NODE_IMAGE": NODE_TAG,
            "NODE_ARCHIVE": node_image(say).archive,
            "ARCHIVES": f"{client.archive} {operator_image().archive} {layout_image().archive}",
            "PATH": f"{kind_command(say)}:{programs.search_path}:{os.environ['PATH']}",
        }
    except ClusterError as error:
        say(str(error))
        return 1
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(str(value))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
