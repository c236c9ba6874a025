"""The network of the cross-encoder: a sentence encoder that reads (query, edit) together, and a small head.

One row is ``[CLS] query [SEP] prompt [SEP] target [SEP]``, the query of token type 0 and the edit of type 1. The head
reads the first token and the means over the query's and the edit's tokens. What was trained over the frozen encoder is
low-rank updates of its linear layers (Hu et al. 2022, LoRA: Low-Rank Adaptation of Large Language Models, eq. 3:
``W + alpha / r * B A``), its two token-type vectors, and the head.

This file imports torch where it stands, so import it where a pair is read and not before. It knows nothing of how
pairs are made, nor of probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classifiers.quiet import quiet_transformers

__all__ = ["ADAPTED_LAYERS", "LOW_RANK", "PairModel", "PairReader", "Row", "adapted"]

ADAPTED_LAYERS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""The linear layers of each block that low-rank updates apply to, by the end of their names."""

LOW_RANK = "lora."
"""What the names of low-rank updates begin with."""

HEAD_WIDTH = 128
"""How many hidden units the head has."""


@dataclass(frozen=True, slots=True)
class Row:
    """One pair as tokens.

    Attributes:
        ids: Token ids, special tokens included.
        types: 0 for the query's tokens, 1 for the edit's; as many as there are ids.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...]


class PairReader:
    """Turns texts into rows.

    Args:
        tokenizer: The encoder's tokenizer.
        query_tokens: A longer query keeps its last tokens: a question stands at the end of what leads up to it.
        prompt_tokens: A longer edit prompt keeps its last tokens.
        target_tokens: A longer target keeps its first tokens.
    """

    def __init__(
        self, tokenizer: Any, *, query_tokens: int = 96, prompt_tokens: int = 64, target_tokens: int = 32
    ) -> None:
        self.tokenizer = tokenizer
        self._limits = (query_tokens, prompt_tokens, target_tokens)
        self._opens, self._closes = int(tokenizer.cls_token_id), int(tokenizer.sep_token_id)
        self._special = frozenset(tokenizer.all_special_ids)

    def rows(self, queries: Sequence[str], prompts: Sequence[str], targets: Sequence[str]) -> list[Row]:
        """One row a pair; the three sequences are of one length."""
        distinct = list(dict.fromkeys((*queries, *prompts, *targets)))
        ids = dict(zip(distinct, self._ids(distinct), strict=True))
        return [
            self._row(ids[query], ids[prompt], ids[target])
            for query, prompt, target in zip(queries, prompts, targets, strict=True)
        ]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        # what a user typed cannot close its own segment: "[SEP]" in a text is left out
        return [[token for token in ids if token not in self._special] for ids in encoded]

    def _row(self, query: list[int], prompt: list[int], target: list[int]) -> Row:
        most_query, most_prompt, most_target = self._limits
        asked = [self._opens, *query[-most_query:], self._closes]
        edit = [*prompt[-most_prompt:], self._closes, *target[:most_target], self._closes]
        return Row((*asked, *edit), (*[0] * len(asked), *[1] * len(edit)))

    def padded(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows of one width: ids, types and mask, each ``[rows, width]``."""
        width = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), width), int(self.tokenizer.pad_token_id))
        types = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for place, row in enumerate(rows):
            length = len(row.ids)
            ids[place, :length] = torch.tensor(row.ids)
            types[place, :length] = torch.tensor(row.types)
            mask[place, :length] = 1
        return ids, types, mask


class PairModel(nn.Module):
    """Encoder and head: a logit a pair.

    Args:
        encoder: A BERT-like model, as ``AutoModel`` loads it.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        width = int(encoder.config.hidden_size)
        self.head = nn.Sequential(nn.Linear(4 * width, HEAD_WIDTH), nn.GELU(), nn.Linear(HEAD_WIDTH, 1))

    @classmethod
    def load(cls, folder: str | Path) -> tuple[PairModel, Any]:
        """The untrained network over the encoder of a folder, and its tokenizer."""
        from transformers import AutoModel, AutoTokenizer

        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            encoder = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, add_pooling_layer=False, dtype=torch.float32
            )
        return cls(encoder).eval(), tokenizer

    def forward(self, ids: torch.Tensor, types: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The logit of each pair, ``[rows]``; the arguments are each ``[rows, width]``."""
        states = self.encoder(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state
        query = _mean(states, mask * (1 - types))
        edit = _mean(states, mask * types)
        read = torch.cat([states[:, 0], query, edit, (query - edit).abs()], dim=-1)
        logits: torch.Tensor = self.head(read).squeeze(-1)
        return logits

    def merge(self, tensors: Mapping[str, torch.Tensor], *, scale: float) -> None:
        """Puts what was trained into place: low-rank updates into the layers, the token types, the head.

        Args:
            tensors: ``lora.LAYER.A`` ``[rank, in]`` and ``lora.LAYER.B`` ``[out, rank]``, ``token_types`` ``[2,
                hidden]``, and the head's by name.
            scale: ``alpha / r``.

        Raises:
            ValueError: The tensors are not those of this network: one is missing, too many, or of another shape.
        """
        wanted = {name: tuple(tensor.shape) for name, tensor in self._places().items()}
        for layer in adapted(name for name, _ in self.encoder.named_modules()):
            weight = self.encoder.get_submodule(layer).weight
            rank = tensors.get(f"{LOW_RANK}{layer}.A", weight[:0]).shape[0]
            wanted[f"{LOW_RANK}{layer}.A"] = (rank, weight.shape[1])
            wanted[f"{LOW_RANK}{layer}.B"] = (weight.shape[0], rank)
        given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if given != wanted:
            differing = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
            name = differing[0]
            raise ValueError(
                f"{len(differing)} tensors are not this encoder's, first {name}: the shape should be "
                f"{wanted.get(name)} and is {given.get(name)}"
            )
        with torch.no_grad():
            for name, place in self._places().items():
                place.copy_(tensors[name])
            for layer in adapted(name for name, _ in self.encoder.named_modules()):
                down, up = (tensors[f"{LOW_RANK}{layer}.{side}"].float() for side in ("A", "B"))
                self.encoder.get_submodule(layer).weight.add_(up @ down, alpha=scale)

    def trained(self) -> dict[str, torch.Tensor]:
        """What `merge` takes besides the low-rank updates, by name."""
        return {name: place.detach().clone() for name, place in self._places().items()}

    def _places(self) -> dict[str, torch.Tensor]:
        """The tensors that are replaced as a whole."""
        return {
            "token_types": self.encoder.get_submodule("embeddings.token_type_embeddings").weight,
            **{f"head.{name}": parameter for name, parameter in self.head.named_parameters()},
        }


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the tokens that the mask keeps, ``[rows, hidden]``."""
    kept = mask.unsqueeze(-1).to(states)
    return (states * kept).sum(1) / kept.sum(1).clamp(min=1.0)


def adapted(names: Iterable[str]) -> list[str]:
    """Those of the names that are layers with low-rank updates."""
    return [name for name in names if name.endswith(ADAPTED_LAYERS)]
