"""Makes the token ids of prompts, and of conversations by the checkpoint's own chat template.

The names of special tokens are text in what clients say, and special tokens in the template: no message can end its
turn and speak in another role.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from deployments.replica.tokens import TAKEN_APART, TOKENIZER_FILE, TextTokens, well_formed
from gateway.model.messages import Failure, FailureKind

TEMPLATE_FILE = "chat_template.jinja"


class Prompts:
    """Reads prompts and conversations for one checkpoint. Safe to use from many threads, since it never changes."""

    def __init__(self, tokenizer_file: Path, template: str | None, ends: Sequence[int]) -> None:
        """Takes the tokenizer's file, the chat template if there is one, and the tokens that end an answer."""
        self.tokens = TextTokens.open(tokenizer_file)
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))  # which reads the names of special tokens as such
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        added = self.tokenizer.get_added_tokens_decoder().values()
        self._names = tuple(token.content for token in added if token.special and len(token.content) > 1)
        self._end = self.tokenizer.id_to_token(ends[0]) if ends else ""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals |= {"raise_exception": _refuse, "strftime_now": time.strftime}
        self._template = None if template is None else environment.from_string(template)

    @classmethod
    def open(cls, folder: Path, ends: Sequence[int]) -> Prompts:
        """Opens the tokenizer of a variant's folder, and its chat template if it has one."""
        template = folder / TEMPLATE_FILE
        text = template.read_text(encoding="utf-8") if template.exists() else None
        return cls(folder / TOKENIZER_FILE, text, ends)

    def of_text(self, text: str) -> list[int]:
        """The token ids of a prompt."""
        return self.tokens.encode(text)

    def of_conversation(self, roles: Sequence[str], contents: Sequence[str]) -> list[int] | Failure:
        """The token ids of a conversation up to where the assistant's answer begins; REFUSED by the template.

        A checkpoint without a template gets what each message says, ended by the token that ends its answers, as
        DialoGPT does.
        """
        said = [self._plain(one) for one in contents]
        if self._template is None:
            text = "".join(f"{one}{self._end}" for one in said)
        else:
            messages = [{"role": role, "content": one} for role, one in zip(roles, said, strict=True)]
            special = {"bos_token": "", "eos_token": self._end}
            try:
                text = self._template.render(messages=messages, add_generation_prompt=True, **special)
            except (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
                return Failure(FailureKind.REFUSED, "the checkpoint's chat template does not take these roles")
        ids: list[int] = self.tokenizer.encode(text).ids
        return ids

    def _plain(self, text: str) -> str:
        """What a client says, with a space in each name of a special token, so that the tokenizer reads it as text."""
        text = well_formed(text)
        for _ in range(TAKEN_APART):
            for name in self._names:
                text = text.replace(name, f"{name[0]} {name[1:]}")
        return text


def _refuse(message: str) -> NoReturn:
    """What templates call where they do not take a conversation."""
    raise TemplateError(message)
