"""What can go wrong between a checkpoint and its variant; every message is meant for the person at the terminal.

ExportError
├── SourceRefused    the checkpoint cannot be taken: not safetensors, wants remote code, ...
│   └── SourceAbsent it is not on this machine
├── ExportFailed     the export itself broke; the detail holds the end of its log
└── VariantRefused   the variant was made, and is not good enough to serve
"""

from __future__ import annotations

from msgspec import Struct


class ExportError(Exception):
    """The base of them all."""


class SourceRefused(ExportError):
    """The source of a checkpoint cannot be used; the message names it and says why."""


class SourceAbsent(SourceRefused):
    """The source of a checkpoint is not here; what was made of it before can still be served."""


class ExportFailed(ExportError):
    """A step of an export broke for a reason that is not the checkpoint's quality."""


class Difference(Struct, frozen=True):
    """One text, by its place among those verified on, and what source and variant answer to it, in few words."""

    text: int
    source: str
    variant: str


class VariantRefused(ExportError):
    """A variant under its floor: nothing of it is kept. `differences` are the worst texts, for a table."""

    def __init__(self, checkpoint: str, variant: str, reason: str, differences: tuple[Difference, ...]) -> None:
        """Positional arguments, so that it can be pickled."""
        super().__init__(checkpoint, variant, reason, differences)
        self.checkpoint, self.variant, self.reason, self.differences = checkpoint, variant, reason, differences

    def __str__(self) -> str:
        """One sentence; the rows are left to a table."""
        return f"{self.checkpoint}, {self.variant}: {self.reason}"
