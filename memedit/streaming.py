"""An answer piece by piece, while it is generated in another thread.

Knows ``generate`` only as a function; nothing of edits.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

__all__ = ["TextStream"]


class TextStream(Iterator[str]):
    """The continuation's text as it comes; joined, the pieces are the whole.

    Generation starts at once, with the caller's context (edits disabled here are disabled there), whenever it is read.
    An error in ``generate`` is raised to whoever reads. :meth:`close`, or dropping the stream, stops the generation at
    its next token.

    Args:
        generate: The model's ``generate``.
        tokenizer: Turns ids into text.
        arguments: What ``generate`` is called with, for one row.
    """

    def __init__(self, generate: Callable[..., Any], tokenizer: Any, arguments: Mapping[str, Any]) -> None:
        from transformers import StoppingCriteriaList, TextIteratorStreamer

        self._abandoned = threading.Event()
        self._failures: list[BaseException] = []
        self._streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        criteria = StoppingCriteriaList([*(arguments.get("stopping_criteria") or ()), _stop_when(self._abandoned)])
        call = {**arguments, "streamer": self._streamer, "stopping_criteria": criteria}
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(_run, generate, call, self._streamer, self._failures),
            daemon=True,
        )
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        """The next piece of text.

        Raises:
            StopIteration: The answer is complete, or the stream was closed.
        """
        if self._abandoned.is_set():
            raise StopIteration
        for piece in self._streamer:
            if piece:  # the streamer holds words back until they are whole, and then says nothing
                return str(piece)
        self.close()
        if self._failures:
            raise self._failures.pop()
        raise StopIteration

    def close(self) -> None:
        """Stop generating and wait for the thread to end."""
        self._abandoned.set()
        self._thread.join()

    def __del__(self) -> None:
        abandoned = getattr(self, "_abandoned", None)
        if abandoned is not None:
            abandoned.set()


def _run(generate: Callable[..., Any], call: Mapping[str, Any], streamer: Any, failures: list[BaseException]) -> None:
    try:
        generate(**call)
    except BaseException as error:  # noqa: BLE001  # handed to the reader, who raises it
        failures.append(error)
        streamer.end()


def _stop_when(abandoned: threading.Event) -> Any:
    from transformers import StoppingCriteria

    class Abandoned(StoppingCriteria):  # type: ignore[misc]  # transformers carries no types
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:  # noqa: ARG002  # its interface
            return input_ids.new_full((input_ids.shape[0],), abandoned.is_set()).bool()

    return Abandoned()
