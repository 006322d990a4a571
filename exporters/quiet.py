"""Silence for the libraries of an export, whose chatter would bury the one line that matters."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

CHATTY = ("optimum", "transformers", "torch.onnx", "onnxruntime", "huggingface_hub", "onnxscript")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Only errors of the export libraries are heard inside; their levels are put back afterwards."""
    from optimum.utils import logging as optimum_logging  # export time only, as all of this module
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in (*CHATTY, None)]  # the quantiser logs on the root
    levels = [logger.level for logger in loggers]
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    optimum_logging.set_verbosity_error()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
