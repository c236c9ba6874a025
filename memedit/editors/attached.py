"""What the methods share that put a module beside one of the model's own: examples, cost, installing, undoing.

The weights stay as they are. Edits are learnt by a copy of the module, one after the other, and the copy takes its
place when all are: if one cannot be learnt, the model is as it was. This file knows nothing of what such a module does.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from memedit.editors.activations import inputs_of
from memedit.editors.editor import EditCost, MethodInfo, TokenIds, Treatment
from memedit.editors.examples import Example, ExampleMaker
from memedit.editors.subject import Subject
from memedit.hooks import Attachment
from memory_store import Edit

if TYPE_CHECKING:
    import torch

__all__ = ["AttachedEditor", "ordinary_inputs"]

A = TypeVar("A", bound="torch.nn.Module")


class AttachedEditor(ABC, Generic[A]):
    """A method whose edits are in a module that is put beside one of the model's.

    Attributes:
        learns_elsewhere: Whether it learns from ordinary prompts where to keep quiet; they are read once a model.
        path: The path of the module that it stands beside.

    Args:
        subject: The model.
        info: What the method is.
        path: The module's path.
        template: Whether prompts go through the chat template; None for wherever there is one.

    Raises:
        ConfigError: The model has no chat template where one is asked for.
    """

    learns_elsewhere: ClassVar[bool] = False

    def __init__(self, subject: Subject, info: MethodInfo, *, path: str, template: bool | None) -> None:
        self.path = path
        self._subject = subject
        self._info = info
        self._template = template
        self._example = ExampleMaker(subject, template=template)
        self._addition: A | None = None
        self._attachment: Attachment | None = None
        self._read_elsewhere: torch.Tensor | None = None

    @property
    def info(self) -> MethodInfo:
        """What the method is."""
        return self._info

    def edit(self, edits: Sequence[Edit]) -> EditCost:
        """Learn some edits one after the other, on top of those made before.

        Args:
            edits: Drafts.

        Returns:
            What it cost. The buffers of the module are what the edits take.

        Raises:
            UnsupportedCallError: One of them is incomplete, or too long for the model. Nothing is changed.
            ConfigError: Training diverged. Nothing is changed.
        """
        started = time.perf_counter()
        if not edits:
            return EditCost(edits=0, seconds=time.perf_counter() - started, stored_bytes=0)
        set_up = 0.0
        if self.learns_elsewhere and self._read_elsewhere is None:
            self._read_elsewhere = ordinary_inputs(self._subject, self.path, template=self._template)
            set_up = time.perf_counter() - started
        examples = [self._example(edit) for edit in edits]
        earlier = self._addition
        addition = self._fresh() if earlier is None else copy.deepcopy(earlier)
        self._put(addition)
        try:
            for example in examples:
                self._learn(addition, example)
        except BaseException:
            self._put(earlier)
            raise
        stored = _bytes(addition) - (0 if earlier is None else _bytes(earlier))
        seconds = time.perf_counter() - started - set_up
        return EditCost(edits=len(edits), seconds=seconds, setup_seconds=set_up, stored_bytes=stored)

    def treat(self, prompts: Sequence[TokenIds]) -> list[Treatment]:
        """Leave every prompt as it is: the edits are in the model."""
        return [Treatment()] * len(prompts)

    def undo(self) -> None:
        """Take the module away, and every edit with it."""
        self._put(None)

    def _put(self, addition: A | None) -> None:
        """Put a module in its place beside the model's own, or none."""
        if self._attachment is not None and addition is None:
            self._attachment.remove()
            self._attachment = None
        elif self._attachment is not None and addition is not None:
            self._attachment.exchange(addition)
        elif addition is not None:
            name = self._info.name.replace("-", "_")
            self._attachment = Attachment(self._subject.model, self.path, name, addition)
        self._addition = addition

    @property
    def _ordinary(self) -> torch.Tensor:
        """What the module reads where nobody asks for an edit (`ordinary_inputs`), if the method `learns_elsewhere`."""
        if self._read_elsewhere is None:
            raise RuntimeError("the set-up was not done")
        return self._read_elsewhere

    @abstractmethod
    def _fresh(self) -> A:
        """A module without edits, which changes nothing."""

    @abstractmethod
    def _learn(self, addition: A, example: Example) -> None:
        """Have the module, which is in its place, learn one edit."""


def ordinary_inputs(subject: Subject, path: str, *, template: bool | None = None) -> torch.Tensor:
    """What a module reads where nobody asks for an edit: at every token of 48 ordinary prompts.

    The prompts are this project's own, in ``data/ordinary.txt``. A method that has to learn where to keep quiet learns
    it from them.

    Args:
        subject: The model.
        path: The module's path.
        template: Whether prompts go through the chat template; None for wherever there is one.

    Returns:
        The module's inputs, each different one once, ``[tokens, width]``, 32-bit.
    """
    import torch

    text = resources.files("memedit").joinpath("data", "ordinary.txt").read_text(encoding="utf-8")
    chats = subject.chats if template is None else template
    rows = [
        subject.chat_ids([{"role": "user", "content": line}]) if chats else tuple(subject.tokenizer(line)["input_ids"])
        for line in text.splitlines()
    ]
    # row by row: what stands before the first word is the same in all of them, and is kept once
    read = [inputs_of(subject.model, path, [row])[0] for row in rows]
    same = 0
    while all(row[: same + 1] == rows[0][: same + 1] for row in rows):
        same += 1
    return torch.cat([read[0], *(one[same:] for one in read[1:])]).float()


def _bytes(module: torch.nn.Module) -> int:
    return sum(buffer.nbytes for buffer in module.buffers())
