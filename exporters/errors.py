"""The errors of exports; every message is written for the user at the terminal.

ExportError
├── SourceRefused    the checkpoint cannot be used: not safetensors, needs its own code, ...
│   └── SourceAbsent it is not on this machine
│       └── BaseAbsent its weights, or those that it adapts, cannot be fetched now
├── ExportFailed     the export failed; the message holds the end of its log
│   └── ExportCrashed its process was ended by a fault of native code, such as an engine's library
└── VariantRefused   the variant agrees too little with its source to be served
"""

from __future__ import annotations

from msgspec import Struct


class ExportError(Exception):
    """The base of this module's errors."""


class SourceRefused(ExportError):
    """A checkpoint's source cannot be used; the message names it and says why."""


class SourceAbsent(SourceRefused):
    """A checkpoint's source is not on this machine; variants made from it earlier can still be served."""


class BaseAbsent(SourceAbsent):
    """A checkpoint's weights, or those that it adapts, cannot be fetched now; a later start may have them."""


class ExportFailed(ExportError):
    """A step of an export failed for a reason other than the variant's quality."""


class ExportCrashed(ExportFailed):
    """The export's process was ended by a fault of native code (SIGSEGV, SIGILL, SIGABRT, ...)."""


class Difference(Struct, frozen=True):
    """One verification text, by index, with short forms of the source's and the variant's answers."""

    text: int
    source: str
    variant: str


class VariantRefused(ExportError):
    """The variant is under its floor and was deleted. `differences` are the worst texts."""

    def __init__(self, checkpoint: str, variant: str, reason: str, differences: tuple[Difference, ...]) -> None:
        """Takes positional arguments only, so that it can be pickled."""
        super().__init__(checkpoint, variant, reason, differences)
        self.checkpoint, self.variant, self.reason, self.differences = checkpoint, variant, reason, differences

    def __str__(self) -> str:
        """One sentence, without the differences."""
        return f"{self.checkpoint}, {self.variant}: {self.reason}"
