"""What an export job imports, for the process that jobs are forked from."""

from __future__ import annotations

import optimum.exporters.onnx
import transformers.models.auto.modeling_auto
import transformers.models.bart.modeling_bart
import transformers.models.bert.modeling_bert
import transformers.models.distilbert.modeling_distilbert

import exporters.export

__all__ = ["exporters", "optimum", "transformers"]
