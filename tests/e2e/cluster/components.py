"""The files of each component that component.sh starts: log, pid and, at its end, exit status."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

START = Path(__file__).parent / "component.sh"


@dataclass(frozen=True, slots=True)
class Components:
    """The components of one box or virtual machine, called ``name``."""

    name: str
    folder: Path

    def names(self) -> list[str]:
        """Return all that were started."""
        return sorted(path.stem for path in self.folder.glob("*.pid"))

    def log(self, component: str) -> Path:
        """Return where a component's output goes."""
        return self.folder / f"{component}.log"

    def exit_status(self, component: str) -> int | None:
        """Return how a component ended; None while it runs or when it was never started."""
        try:
            text = (self.folder / f"{component}.exit").read_text()
        except FileNotFoundError:
            return None
        return int(text) if text.strip() else None
