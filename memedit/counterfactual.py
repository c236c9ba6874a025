"""The counterfactual model: a small language model that answers as if some facts were true.

SERAC's second half (Mitchell et al. 2022, Memory-Based Model Editing at Scale, section 3.1): it reads the edits and the
query, and nothing of the base model, so that any base model can be served. Unlike SERAC's it also says when no edit
answers the query after all: its answer is then the end of text at once. It is a small instruct model with a low-rank
adapter (LoRA, Hu et al. 2021) of its own. A folder holds the adapter, in two files:

- ``counterfactual.json``: ``format_version``; ``base``, the name and the fingerprint of the model that the adapter
  belongs to; ``rank``, ``alpha`` and ``target_modules`` of the adapter; ``prompt_version``, the wording it was trained
  on; ``card``, what the training has to say of it; ``tensors``, the other file's name and SHA-256.
- ``counterfactual-<digest>.safetensors``: for each adapted linear layer ``<its path>.lora_A``, ``[rank, in]``, and
  ``<its path>.lora_B``, ``[out, rank]``. The layer's weight becomes ``W + alpha / rank * B A``.

Training and inference word the model's input with the same `CounterfactualPrompt`. This file knows nothing of routing,
of base models, or of how the adapter was trained.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from classifiers.saved_folder import SavedFolder
from memedit.chat_format import ChatFormat
from memedit.errors import ConfigError, DataFileError, ModelNotFoundError, UnsupportedCallError
from memedit.fingerprints import model_fingerprint
from memedit.passes import folded_head, logits_of, max_positions, pad_left
from memedit.pretrained import load_model
from memedit.prompts import Fact, Neutraliser, Segment, context_ids, statement
from memedit.quotations import KeepQuoting, Quotation

if TYPE_CHECKING:
    import torch

__all__ = [
    "FORMAT_VERSION",
    "GREEDY",
    "MAX_ADAPTER_BYTES",
    "MAX_QUERY_CHARACTERS",
    "PROMPT_VERSION",
    "CounterfactualAdapter",
    "CounterfactualModel",
    "CounterfactualPrompt",
    "Request",
    "has_shipped_model",
    "load_adapter",
    "save_counterfactual",
    "shipped_folder",
]

FORMAT_VERSION = 1
"""The format of saved adapters that is written; this one and every older one is read."""

PROMPT_VERSION = 4
"""The wording of `CounterfactualPrompt`, and what an empty answer means; an adapter trained on another is refused."""

MAX_ADAPTER_BYTES = 10_000_000
"""The most that the tensors of an adapter take."""

MAX_QUERY_CHARACTERS = 8_000
"""Of a longer query the end is kept."""

MAX_REPEATED_CHARACTERS = 80
"""Subjects and targets up to this length stand in a fact a second time, in quotation marks."""

MAX_SHOWN_ALIASES = 5
"""How many of a subject's other names are told."""

DEFAULT_ANSWER_TOKENS = 64
BATCH_TOKENS = 4_096
"""Tokens of a batch, prompts and answers and padding together."""

GREEDY: Mapping[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    # a model's own settings may hold these; they count padding as said, so that answers would depend on the batch
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}
"""Options of ``generate``: the likeliest token at each place, whatever the model's own generation settings are."""

_LEAD = 3.0
"""By how many nats something else must lead where an answer quotes a target, its first sentence said already."""

_PAUSE = re.compile(r"[.!?][\"'”’)\]]*(?=\s)|[。！？]")
"""The end of a sentence."""

_HEADING = "Facts:\n"
_CLOSES = frozenset(",.;:!?)]}%’”。，！？、")
_SAVED = SavedFolder(
    stem="counterfactual",
    what="counterfactual model",
    version=FORMAT_VERSION,
    damaged=DataFileError,
    newer=DataFileError,
)


class CounterfactualPrompt:
    """Words what the counterfactual model reads, and what it is to say: in training as in use.

    A conversation's question stands in one user turn, behind the facts, in the tokenizer's own chat template. A plain
    text stands behind the facts without any template, and goes on. Where the facts have nothing to do with the query,
    what the model reads is thus as near as can be to what it would read without them. The text of a fact is
    neutralised; special tokens in it, or in the query, are never parsed as such.

    Args:
        tokenizer: The counterfactual model's tokenizer.

    Raises:
        ConfigError: The tokenizer has no chat template that can be read.
    """

    def __init__(self, tokenizer: Any) -> None:
        chat_format = ChatFormat.from_tokenizer(tokenizer)
        if chat_format is None:
            raise ConfigError(
                "a counterfactual model needs a chat template, and this tokenizer has none that can be read; take an "
                "instruct model as its base"
            )
        self.tokenizer = tokenizer
        self._format = chat_format
        self._neutral = Neutraliser.for_tokenizer(tokenizer)
        begins = tokenizer("x")["input_ids"][:1]
        self._begin = begins if begins == [tokenizer.bos_token_id] else []

    def facts(self, edits: Sequence[Fact]) -> str:
        """The facts as they stand before a query, the best last.

        Args:
            edits: The facts, best first.

        Returns:
            Lines under a heading and a blank line; empty where there are no facts.
        """
        lines = dict.fromkeys(f"- {self._line(edit)}\n" for edit in reversed(edits))
        return f"{_HEADING}{''.join(lines)}\n" if lines else ""

    def facts_ids(self, edits: Sequence[Fact]) -> list[int]:
        """`facts` as token ids: what stands before a plain text.

        Args:
            edits: The facts, best first.
        """
        return context_ids((Segment(self.facts(edits)),), self.tokenizer)

    def ids(self, edits: Sequence[Fact], query: str, *, conversational: bool, begun: str = "") -> list[int]:
        """What the model reads.

        Args:
            edits: The facts, best first.
            query: What is asked, or the text that is to go on.
            conversational: Whether it is a question that someone asks in a conversation.
            begun: An answer that is begun already and is to go on; in a conversation only.

        Returns:
            Token ids, with the begin-of-text token where the tokenizer sets one.
        """
        asked = _end_of(query)
        if not conversational:
            return [*self._begin, *self.facts_ids(edits), *context_ids((Segment(asked),), self.tokenizer)]
        segments = (
            Segment(self._format.opening, markup=True),
            Segment(self.facts(edits)),
            Segment(asked),
            Segment(self._format.generation_prompt, markup=True),
            Segment(begun),
        )
        return context_ids((segment for segment in segments if segment.text), self.tokenizer)

    def answer_ids(self, query: str, answer: str, *, conversational: bool) -> list[int]:
        """What the model is to say behind `ids`.

        Args:
            query: The query that was given to `ids`.
            answer: Its answer. Behind a plain text it is joined as the text goes on: with a space where one is due.
                Empty where no fact answers the query.
            conversational: As it was given to `ids`.

        Returns:
            Token ids, the end-of-text token last.
        """
        text = answer if conversational else _joined(query, answer)
        return [*context_ids((Segment(text),), self.tokenizer), self.tokenizer.eos_token_id]

    def quotations(self, edits: Sequence[Fact], query: str, *, conversational: bool) -> tuple[Quotation, ...]:
        """The facts' targets of several sentences, as they would be said behind `ids`.

        Args:
            edits: The facts.
            query: The query that was given to `ids`.
            conversational: As it was given to `ids`.
        """
        targets = dict.fromkeys(edit.target.rstrip() for edit in edits)
        found = (self._quotation(target, query, conversational=conversational) for target in targets)
        return tuple(one for one in found if one is not None)

    def _quotation(self, target: str, query: str, *, conversational: bool) -> Quotation | None:
        """A target, if it has several sentences."""
        first = _PAUSE.search(target)
        if first is None or first.end() == len(target):
            return None
        ids, begins = (
            self.answer_ids(query, text, conversational=conversational)[:-1] for text in (target, target[: first.end()])
        )
        return Quotation(tuple(ids), len(begins), _LEAD)

    def text(self, edits: Sequence[Fact], query: str, *, conversational: bool, begun: str = "") -> str:
        """`ids` as text, for people; the arguments are the same."""
        return self.decode(self.ids(edits, query, conversational=conversational, begun=begun))

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids as text, special tokens written out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _line(self, edit: Fact) -> str:
        target = self._neutral(edit.target)
        told = statement(self._neutral(edit.prompt), target)
        subject = self._neutral(edit.subject) if edit.subject else ""
        # Behind a quotation mark a word is cut into the tokens that begin an answer; behind a space it mostly is
        # another token, and what is not a token of the fact cannot be copied but has to be spelt.
        quoted = [f'"{name}"' for name in (subject, target) if 0 < len(name) <= MAX_REPEATED_CHARACTERS]
        if quoted:
            told = f"{told} ({': '.join(quoted)})"
        names = [self._neutral(alias) for alias in edit.aliases[:MAX_SHOWN_ALIASES]] if subject else []
        return f"{told} ({subject} is also known as {', '.join(names)}.)" if names else told


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterfactualAdapter:
    """A trained adapter, as it is saved.

    Attributes:
        base: The name of the model it belongs to, as `memedit.resolve` knows it.
        base_fingerprint: `memedit.fingerprints.model_fingerprint` of the model it was trained on.
        rank: Rank of the updates.
        alpha: The updates are multiplied by ``alpha / rank``.
        target_modules: The last names of the adapted layers, such as ``"q_proj"``.
        tensors: ``<path>.lora_A``, ``[rank, in]``, and ``<path>.lora_B``, ``[out, rank]``; float16 or float32.
        card: What the training has to say; JSON.
        prompt_version: The wording that it was trained on.
    """

    base: str
    base_fingerprint: str
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    tensors: Mapping[str, NDArray[np.generic]]
    card: Mapping[str, Any] = field(default_factory=dict)
    prompt_version: int = PROMPT_VERSION

    def updates(self) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
        """The path of each adapted layer, with its ``A`` and ``B``, float32."""
        for name in sorted(self.tensors):
            path, _, part = name.rpartition(".")
            if part == "lora_A":
                yield (
                    path,
                    self.tensors[name].astype(np.float32),
                    self.tensors[f"{path}.lora_B"].astype(np.float32),
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to the counterfactual model.

    Attributes:
        edits: The facts, best first.
        query: What is asked, or the text that is to go on.
        conversational: Whether it is a question that someone asks in a conversation.
        begun: An answer that is begun already.
    """

    edits: tuple[Fact, ...]
    query: str
    conversational: bool = True
    begun: str = ""


class CounterfactualModel:
    """A small language model that answers as if the facts it is given were true, and says nothing where none answers.

    Attributes:
        model: A decoder-only ``transformers`` model, adapter and all.
        tokenizer: Its tokenizer, padding on the left.
        name: What people call it.
        fingerprint: Names what it answers: of the base model and the adapter.
        prompt: Words what it reads.
        markers: The ids of special tokens, which are no part of an answer.
        note: What a person should know of how it was put together; empty where there is nothing.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        name: What people call it.
        fingerprint: Names what it answers.
        note: What a person should know of it.

    Raises:
        ConfigError: The tokenizer has no chat template.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, fingerprint: str, note: str = "") -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.fingerprint = fingerprint
        self.prompt = CounterfactualPrompt(tokenizer)
        self.markers = tuple(tokenizer.all_special_ids)
        self.note = note

    @classmethod
    def load(
        cls,
        folder: str | Path | None = None,
        *,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str | None = None,
    ) -> Self:
        """Load an adapter and put it into a copy of its base model that is loaded for it alone.

        Args:
            folder: Where the adapter was saved; None for the one that comes with memedit.
            dtype: The weights' type; ``"auto"`` for the one the base model was saved in.
            device: Where the model is put; None for the CPU.

        Raises:
            ModelNotFoundError: There is no adapter, or its base model is not found.
            DataFileError: The adapter is damaged, of a newer format, or does not fit its base model.
        """
        adapter = load_adapter(folder)
        model, tokenizer = load_model(adapter.base, dtype=dtype, device=device)
        found = model_fingerprint(model)
        note = (
            ""
            if found == adapter.base_fingerprint
            else f"its base {adapter.base} has other weights ({found}) here than where it was trained "
            f"({adapter.base_fingerprint})"
        )
        _merge(model, adapter)
        return cls(model, tokenizer, name=adapter.base, fingerprint=_fingerprint(adapter, found), note=note)

    def answer(
        self,
        requests: Sequence[Request],
        *,
        max_new_tokens: int = DEFAULT_ANSWER_TOKENS,
        stop: Sequence[str] = (),
        sampling: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Answer some requests.

        Args:
            requests: What is asked.
            max_new_tokens: The most tokens of an answer.
            stop: Strings at the first of which an answer is cut.
            sampling: Options of ``generate`` that say how to sample; without any, the likeliest token is taken.

        Returns:
            One answer a request, in order. That to a plain text goes on from it, a space in front included.

        Raises:
            UnsupportedCallError: A request is longer than the model reads.
        """
        read = [
            self.prompt.ids(one.edits, one.query, conversational=one.conversational, begun=one.begun)
            for one in requests
        ]
        quotations = [
            () if one.begun else self.prompt.quotations(one.edits, one.query, conversational=one.conversational)
            for one in requests
        ]
        texts = self.complete(read, max_new_tokens=max_new_tokens, quotations=quotations, sampling=sampling)
        return [_cut(text, stop) for text in texts]

    def refusals(self, requests: Sequence[Request]) -> list[float]:
        """How probable it is that the facts of a request do not answer it: that nothing is the answer.

        Args:
            requests: What is asked; what is begun of an answer is left out of account.

        Returns:
            One probability a request, that of the end of text at once.

        Raises:
            UnsupportedCallError: A request is longer than the model reads.
        """
        import torch

        read = [self.prompt.ids(one.edits, one.query, conversational=one.conversational) for one in requests]
        self._check_lengths(read, 1)
        end = self.tokenizer.eos_token_id
        found: dict[int, float] = {}
        for batch in _batches(read, 1):
            with torch.inference_mode():
                logits = logits_of(self.model, [read[place] for place in batch], keep=1, pad=end)[:, -1]
            found.update(zip(batch, torch.softmax(logits.float(), dim=-1)[:, end].tolist(), strict=True))
        return [found[place] for place in range(len(read))]

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int = DEFAULT_ANSWER_TOKENS,
        may_be_empty: bool = True,
        quotations: Sequence[Sequence[Quotation]] | None = None,
        sampling: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Go on from prompts that `CounterfactualPrompt.ids` has worded.

        Args:
            prompts: Token ids.
            max_new_tokens: The most tokens of a continuation.
            may_be_empty: Whether nothing may be said. Otherwise no special token may come first: next to the end of
                text the marker of another turn is the likeliest.
            quotations: For each prompt the texts that an answer goes on quoting where it begins to.
            sampling: Options of ``generate`` that say how to sample. The random numbers that the caller draws
                afterwards are the same as without this call.

        Returns:
            One text a prompt, in order, without special tokens.

        Raises:
            UnsupportedCallError: A prompt is longer than the model reads.
        """
        self._check_lengths(prompts, max_new_tokens)
        texts: dict[int, str] = {}
        with self._drawing(sampling):
            for batch in _batches(prompts, max_new_tokens):
                quoted = [() if quotations is None else quotations[place] for place in batch]
                said = self._generate(
                    [prompts[place] for place in batch], max_new_tokens, may_be_empty, quoted, sampling
                )
                texts.update(zip(batch, said, strict=True))
        return [texts[place] for place in range(len(prompts))]

    def _check_lengths(self, prompts: Sequence[Sequence[int]], more: int) -> None:
        longest = max_positions(self.model)
        for ids in prompts:
            if longest is not None and len(ids) + more > longest:
                raise UnsupportedCallError(
                    f"the counterfactual model {self.name} reads {longest} tokens, and is to read {len(ids)} and say "
                    f"{more} more; shorten the prompt or the edit's text, or ask for fewer new tokens"
                )

    @contextmanager
    def _drawing(self, sampling: Mapping[str, Any] | None) -> Iterator[None]:
        """Leaves the random number generators as they were."""
        import torch

        if not sampling:
            yield
            return
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            yield

    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        may_be_empty: bool,
        quotations: Sequence[Sequence[Quotation]],
        sampling: Mapping[str, Any] | None,
    ) -> list[str]:
        import torch

        end = self.tokenizer.eos_token_id
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else end
        ids, mask = pad_left(prompts, device=self.model.device, pad=pad)
        with torch.inference_mode(), folded_head(self.model):
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                begin_suppress_tokens=None if may_be_empty else list(self.markers),
                logits_processor=[KeepQuoting(quotations, width=ids.shape[1])] if any(quotations) else [],
                eos_token_id=end,
                pad_token_id=pad,
                **{**GREEDY, **(sampling or {})},
            )
        texts = []
        for row in out[:, ids.shape[1] :].tolist():
            kept = row[: row.index(end)] if end in row else row
            texts.append(self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        return texts


def _batches(prompts: Sequence[Sequence[int]], more: int) -> Iterator[list[int]]:
    """The places of prompts, the longest first, as many together as fit with so many tokens behind each."""
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    while order:
        size = max(1, BATCH_TOKENS // (len(prompts[order[0]]) + more))
        yield order[:size]
        order = order[size:]


def shipped_folder() -> Path:
    """Where the adapter that comes with memedit is."""
    return Path(str(resources.files("memedit").joinpath("data", "counterfactual")))


def has_shipped_model() -> bool:
    """Whether an adapter comes with this version."""
    return (shipped_folder() / _SAVED.manifest_name).is_file()


def save_counterfactual(adapter: CounterfactualAdapter, folder: str | Path) -> None:
    """Saves an adapter to a folder, which is created; one saved there before is replaced as a whole.

    Args:
        adapter: The adapter.
        folder: Where to save it.

    Raises:
        DataFileError: Its tensors are not those of an adapter, or take more than `MAX_ADAPTER_BYTES`.
        OSError: The folder cannot be written.
    """
    _check(adapter, str(folder))
    content = {
        "base": {"name": adapter.base, "fingerprint": adapter.base_fingerprint},
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "target_modules": list(adapter.target_modules),
        "prompt_version": adapter.prompt_version,
        "card": dict(adapter.card),
    }
    _SAVED.save(folder, content, adapter.tensors)


def load_adapter(folder: str | Path | None = None) -> CounterfactualAdapter:
    """Loads an adapter, without its base model.

    Args:
        folder: Where it was saved; None for the one that comes with memedit.

    Raises:
        ModelNotFoundError: There is none.
        DataFileError: It is damaged, or of a newer format or another wording.
    """
    root = shipped_folder() if folder is None else Path(folder)
    if not (root / _SAVED.manifest_name).is_file():
        which = "this version comes with no counterfactual model" if folder is None else "no counterfactual model"
        raise ModelNotFoundError(
            f"{which}: there is no {_SAVED.manifest_name} in {root}; train one with: memedit train counterfactual "
            f'--out {"FOLDER" if folder is None else root}, or use mode="ike", which needs none'
        )
    manifest, tensors = _SAVED.load(root)
    try:
        adapter = CounterfactualAdapter(
            base=str(manifest["base"]["name"]),
            base_fingerprint=str(manifest["base"]["fingerprint"]),
            rank=int(manifest["rank"]),
            alpha=float(manifest["alpha"]),
            target_modules=tuple(map(str, manifest["target_modules"])),
            tensors=tensors,
            card=dict(manifest["card"]),
            prompt_version=int(manifest["prompt_version"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataFileError(
            f"{root / _SAVED.manifest_name} is not the description of a counterfactual model: {error!r}"
        ) from error
    if adapter.prompt_version != PROMPT_VERSION:
        raise DataFileError(
            f"{root} was trained on prompts of version {adapter.prompt_version}; this version of memedit words them by "
            f"version {PROMPT_VERSION}. Train it again, or use the version of memedit that trained it."
        )
    _check(adapter, str(root))
    return adapter


def _check(adapter: CounterfactualAdapter, where: str) -> None:
    """Refuses an adapter whose tensors are not those of low-rank updates.

    Raises:
        DataFileError: It is one.
    """
    if adapter.rank < 1 or not adapter.tensors:
        raise DataFileError(f"{where}: an adapter needs a rank of at least 1 and tensors, given rank {adapter.rank}")
    size = sum(tensor.nbytes for tensor in adapter.tensors.values())
    if size > MAX_ADAPTER_BYTES:
        raise DataFileError(
            f"{where}: the adapter's tensors take {size:,} bytes, more than {MAX_ADAPTER_BYTES:,}; "
            "save them as float16, or take a smaller rank"
        )
    for name, tensor in adapter.tensors.items():
        path, _, part = name.rpartition(".")
        other = {"lora_A": "lora_B", "lora_B": "lora_A"}.get(part)
        if other is None or f"{path}.{other}" not in adapter.tensors:
            raise DataFileError(f"{where}: tensor {name!r} is no <path>.lora_A or <path>.lora_B with the other beside")
        if path.rpartition(".")[2] not in adapter.target_modules:
            raise DataFileError(f"{where}: tensor {name!r} is of no module in {', '.join(adapter.target_modules)}")
        if tensor.dtype not in (np.float16, np.float32):
            raise DataFileError(f"{where}: tensor {name!r} is {tensor.dtype}; float16 and float32 are saved")
        if tensor.ndim != 2 or tensor.shape[0 if part == "lora_A" else 1] != adapter.rank:
            raise DataFileError(f"{where}: tensor {name!r} of shape {list(tensor.shape)} is not of rank {adapter.rank}")


def _merge(model: Any, adapter: CounterfactualAdapter) -> None:
    """Adds the updates to the model's weights, each computed in float32.

    Raises:
        DataFileError: The adapter does not fit the model.
    """
    import torch

    modules = dict(model.named_modules())
    for path, a, b in adapter.updates():
        module = modules.get(path)
        if not isinstance(module, torch.nn.Linear) or module.weight.shape != (b.shape[0], a.shape[1]):
            found = "no linear layer" if not isinstance(module, torch.nn.Linear) else f"{list(module.weight.shape)}"
            raise DataFileError(
                f"the counterfactual model's adapter is not one of {adapter.base}: {path} is {found} there, and "
                f"[{b.shape[0]}, {a.shape[1]}] in the adapter"
            )
        weight = module.weight
        update = torch.from_numpy(b).to(weight.device) @ torch.from_numpy(a).to(weight.device)
        merged = (weight.detach().float() + adapter.alpha / adapter.rank * update).to(weight.dtype)
        module.weight = torch.nn.Parameter(merged, requires_grad=False)


def _fingerprint(adapter: CounterfactualAdapter, base: str) -> str:
    digest = hashlib.sha256(f"{base} {adapter.alpha / adapter.rank} {adapter.prompt_version}".encode())
    for path, a, b in adapter.updates():
        digest.update(path.encode() + a.tobytes() + b.tobytes())
    return digest.hexdigest()[:16]


def _end_of(query: str) -> str:
    """The query, or the end of a long one, from a word's beginning on."""
    if len(query) <= MAX_QUERY_CHARACTERS:
        return query
    end = query[-MAX_QUERY_CHARACTERS:]
    return end[end.find(" ") + 1 :]


def _joined(text: str, answer: str) -> str:
    """An answer as a text goes on with it."""
    last, first = text[-1:], answer[:1]
    glued = not answer or not last or last.isspace() or first.isspace() or first in _CLOSES
    without_spaces = last != "" and unicodedata.east_asian_width(last) in {"W", "F"}
    return answer if glued or without_spaces else f" {answer}"


def _cut(text: str, stop: Sequence[str]) -> str:
    places = [place for string in stop if (place := text.find(string)) >= 0]
    return text[: min(places)] if places else text
