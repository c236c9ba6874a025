"""An answer piece by piece, while it is generated in another thread.

Knows ``generate`` only as a function; nothing of edits.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["stream_text"]


def stream_text(generate: Callable[..., Any], tokenizer: Any, arguments: Mapping[str, Any]) -> Iterator[str]:
    """Run ``generate`` and give the continuation's text as it comes.

    An error in ``generate`` is raised to whoever reads the iterator. Closing the iterator, or leaving the loop over it,
    stops the generation at its next token.

    Args:
        generate: The model's ``generate``.
        tokenizer: Turns ids into text.
        arguments: What ``generate`` is called with, for one row.

    Yields:
        Pieces of text without special tokens; joined they are the continuation.
    """
    from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

    abandoned = threading.Event()

    class Abandoned(StoppingCriteria):  # type: ignore[misc]  # transformers carries no types
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:  # noqa: ARG002  # its interface
            return input_ids.new_full((input_ids.shape[0],), abandoned.is_set()).bool()

    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    criteria = StoppingCriteriaList([*(arguments.get("stopping_criteria") or ()), Abandoned()])
    failures: list[BaseException] = []

    def run() -> None:
        try:
            generate(**{**arguments, "streamer": streamer, "stopping_criteria": criteria})
        except BaseException as error:  # noqa: BLE001  # handed to the reader, who raises it
            failures.append(error)
            streamer.end()

    # The new thread sees the caller's context: edits disabled here are disabled there.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True)
    thread.start()
    try:
        for piece in streamer:
            if piece:  # the streamer holds words back until they are whole, and then says nothing
                yield piece
    finally:
        abandoned.set()
        thread.join()
    if failures:
        raise failures[0]
