"""``memedit`` as a model of lm-eval, the language model evaluation harness.

lm-eval's own command line, with this model among its models::

    python -m memedit.lm_eval_model --model memedit --model_args pretrained=NAME,memory=FILE --tasks TASKS

It takes every argument that ``lm_eval`` takes. The plain command finds the model by itself, through the entry point
group ``lm_eval.models``, in releases of lm-eval that read it; 0.4.13 does not. Importing this module registers the
model for ``lm_eval.simple_evaluate``.

Generation is the edited model's own. So are likelihoods, with the question being what stands before the text that is
scored: the router never sees an answer that is being scored. What no edit governs is scored by lm-eval's own code from
the base model, in the batches that it would make for the base model alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memedit.errors import ConfigError, UnsupportedCallError
from memedit.injection import Context, governed_logits
from memedit.known_models import DEFAULT_ENCODER
from memedit.loading import load
from memedit.routing import Decision
from memedit.rows import PromptReader
from memedit.suggestions import suggestion

if TYPE_CHECKING:
    import torch

try:
    from lm_eval.api.registry import model_registry
    from lm_eval.models.huggingface import HFLM
except ImportError as error:
    raise ImportError("lm-eval is not installed, or not whole: pip install 'memedit[eval]'") from error

__all__ = ["MODEL_NAME", "MemeditLM", "main"]

MODEL_NAME = "memedit"
"""What the model is called in ``--model``."""

_PASSED_ON = (
    *("batch_size", "max_batch_size", "max_length", "truncation", "logits_cache", "softmax_dtype"),
    *("mixed_precision_dtype", "add_bos_token", "prefix_token_id", "think_end_token", "enable_thinking"),
    "chat_template_args",
)
"""The options of lm-eval's Hugging Face model that hold for a model that is loaded already."""

_log = logging.getLogger(__name__)

Request = tuple[tuple[str, str] | None, list[int], list[int]]
"""What lm-eval wants scored: context and continuation as text (None for a part of a longer text) and as tokens."""


@dataclass(frozen=True, slots=True)
class _Governed:
    """A request that an edit governs.

    Attributes:
        place: Its place among the requests.
        own: The tokens that the model reads, context and continuation without its last token.
        continuation: The tokens that are scored.
        context: What the edit puts into them.
    """

    place: int
    own: list[int]
    continuation: list[int]
    context: Context


class MemeditLM(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """An edited model, for lm-eval.

    Args:
        pretrained: The base model, as `memedit.load` finds it.
        memory: The memory's file; None for an empty memory, so that the base model answers everything.
        encoder: The text encoder, named as the model is.
        namespace: The memory's namespace that is searched.
        dtype: The weights' type, such as ``"bfloat16"``.
        device: Where the model is put; None for a GPU. Where there is none it is the CPU, as with lm-eval's own models.
        **options: Of lm-eval's Hugging Face model: ``batch_size``, ``max_batch_size``, ``max_length``, ``truncation``,
            ``logits_cache``, ``softmax_dtype``, ``mixed_precision_dtype``, ``add_bos_token``, ``prefix_token_id``,
            ``think_end_token``, ``enable_thinking``, ``chat_template_args``.

    Raises:
        ConfigError: An option is unknown, or there is no such memory.
        ModelNotFoundError: Nothing is known under the name of the model or the encoder.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        memory: str | Path | None = None,
        encoder: str = DEFAULT_ENCODER,
        namespace: str = "default",
        dtype: torch.dtype | str = "auto",
        device: torch.device | str | None = None,
        **options: Any,
    ) -> None:
        import torch

        _check_options(options)
        if memory is not None and not Path(memory).is_file():
            raise ConfigError(f"There is no memory at {memory}; 'memedit add --memory {memory}' makes one.")
        if not torch.cuda.is_available() and (device is None or str(device).startswith("cuda")):
            device = "cpu"  # lm-eval's command line says "cuda:0" by default, and means a GPU where there is one
        self.edited = load(
            pretrained, memory=memory, encoder=encoder, namespace=namespace, dtype=dtype, device=device or "cuda"
        )
        self._reader = PromptReader(self.edited.tokenizer)
        self._base_name = pretrained
        if memory is not None and self.edited.memory.is_empty(namespaces=self.edited.router.namespaces):
            _log.warning(
                "the namespace %r of the memory %s holds no edits: the base model is scored", namespace, memory
            )
        super().__init__(pretrained=self.edited, tokenizer=self.edited.tokenizer, **options)

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes into its results about the model: also how many edits there were, and from where."""
        router = self.edited.router
        return {
            **super().get_model_info(),
            "memedit_pretrained": self._base_name,
            "memedit_memory": str(self.edited.memory.path),
            "memedit_namespaces": list(router.namespaces),
            "memedit_edits": sum(
                self.edited.memory.count(namespace=name, include_expired=False) for name in router.namespaces
            ),
            "memedit_encoder": router.encoder.fingerprint,
        }

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether it is what greedy decoding would give.

        Args:
            requests: What is scored. Parts of longer texts have no question before them, so no edit governs them.
            disable_tqdm: Show no progress.
            override_bs: The batch size, where it is not the model's own.

        Raises:
            UnsupportedCallError: A request with its edit is longer than the model reads.
        """
        governed = list(self._governed(requests))
        aside = {one.place for one in governed}
        # a request without its text is not written to lm-eval's cache: the base model's score is not the one to keep
        plain = [(None, *request[1:]) if place in aside else request for place, request in enumerate(requests)]
        with self.edited.edits_disabled():
            scores: list[tuple[float, bool]] = super()._loglikelihood_tokens(
                plain, disable_tqdm=disable_tqdm, override_bs=override_bs
            )
        for one, score in self._scored(governed, override_bs):
            scores[one.place] = score
            self.cache_hook.add_partial("loglikelihood", requests[one.place][0], score)
        return scores

    def _governed(self, requests: Sequence[Request]) -> Iterator[_Governed]:
        """The requests that an edit governs, each distinct question routed once."""
        asked: dict[tuple[int, ...], list[int]] = {}
        for place, (text, context, continuation) in enumerate(requests):
            if text is not None:
                room = self.max_length + 1 - len(continuation)
                asked.setdefault(tuple(context[-room:]), []).append(place)
        rows = [row for row in map(self._reader.read, asked) if row.query is not None]
        decisions = self.edited.router.route([row.query for row in rows if row.query is not None])
        for row, decision in zip(rows, decisions, strict=True):
            if decision.governed:
                inserted = self.edited.responder.context(row, decision)
                for place in asked[row.ids]:
                    continuation = requests[place][2]
                    own = [*row.ids, *continuation[:-1]]
                    self._check_length(own, inserted, decision)
                    yield _Governed(place, own, continuation, inserted)

    def _check_length(self, own: Sequence[int], context: Context, decision: Decision) -> None:
        if len(own) + context.length > self.max_length:
            raise UnsupportedCallError(
                f"a request has {len(own)} tokens and the edit {decision.edits[0].id} that governs it adds "
                f"{context.length}, more than the {self.max_length} that the model reads; use fewer worked examples "
                "(--num_fewshot), or shorten the edit's text"
            )

    def _scored(
        self, governed: Sequence[_Governed], override_bs: int | None
    ) -> Iterator[tuple[_Governed, tuple[float, bool]]]:
        """The scores of governed requests, in batches of requests of about one length."""
        import torch

        own_size = self.batch_size if isinstance(self.batch_size, int) else min(self.batch_sizes.values(), default=1)
        size = override_bs or own_size
        model = self.edited.responder.model
        ordered = sorted(governed, key=lambda one: -len(one.own) - one.context.length)
        for begin in range(0, len(ordered), size):
            batch = ordered[begin : begin + size]
            with (
                torch.no_grad(),
                torch.autocast(
                    device_type=self.device.type,
                    dtype=self.mixed_precision_dtype,
                    enabled=self.mixed_precision_dtype is not None,
                ),
            ):
                logits = governed_logits(
                    model if model is not None else self.edited.unedited,
                    [one.own for one in batch],
                    [one.context.for_likelihoods() for one in batch],
                    device=self.device,
                    forward_kwargs={},
                )
            for one, each in zip(batch, logits, strict=True):
                yield one, self._score(each[-len(one.continuation) :], one.continuation)

    def _score(self, logits: torch.Tensor, continuation: Sequence[int]) -> tuple[float, bool]:
        """A continuation's log-likelihood, and whether it is the greedy one; ``logits`` is ``[tokens, vocabulary]``."""
        import torch

        log_probs = logits.log_softmax(-1, dtype=self.softmax_dtype)
        targets = torch.tensor(continuation, device=log_probs.device)
        chosen = log_probs.gather(1, targets.unsqueeze(1))
        return float(chosen.sum()), bool((log_probs.argmax(-1) == targets).all())


def _check_options(options: dict[str, Any]) -> None:
    own = ("pretrained", "memory", "encoder", "namespace", "dtype", "device")
    for name in options:
        if name not in _PASSED_ON:
            hint = suggestion(name, (*own, *_PASSED_ON), listing="There are")
            raise ConfigError(f"The model memedit has no option '{name}' (--model_args). {hint}")


def main() -> None:
    """Run lm-eval's own command line, with ``memedit`` among its models."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


# by its name, so that it is one class also where this module is the program that is run
if MODEL_NAME not in model_registry:
    model_registry.register(MODEL_NAME, target="memedit.lm_eval_model:MemeditLM")

if __name__ == "__main__":
    main()
