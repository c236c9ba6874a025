"""What a run is asked to do: checked when made, kept with its results, and told as a command line again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from memedit.errors import ConfigError
from memedit.evaluation.results import Protocol
from memedit.evaluation.variants import CONTEXTS, Context
from memedit.known_models import DEFAULT_ENCODER
from memedit.suggestions import suggestion

__all__ = ["COMPARABLE", "RunSettings", "differing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The settings of a run.

    Attributes:
        model: Name of the model.
        encoder: Name of the text encoder that retrieving methods use.
        methods: Names of the methods; the unedited model is always measured beside them.
        data: The datasets, by name and split.
        edits: How many edits are in place when a case is asked.
        limit: How many cases of each dataset are asked; None for all.
        seeds: How many orders of edits, and choices of distractors, are tried.
        protocols: How models are asked and answers are read.
        sequential: Make edits one after the other, also where a method can make them together.
        distractors: A dataset whose edits fill the memory up, after those of the dataset's own other cases.
        traffic: A dataset of questions that no edit concerns, asked beside the cases.
        traffic_limit: How many of them.
        contexts: What each edit's probe is asked behind as well: ``passage``, ``turns``, ``document``.
        document_words: How many words a document has at least.
        conflicts: Ask also which of two contradicting edits wins.
        dtype: The type of the model's weights; ``"auto"`` for the one they were saved in.
        max_new_tokens: The most tokens of an answer, the same for every prompt.
        batch_tokens: The most tokens of a batch, padding included.
        kl: Compare next-token distributions out of scope.
        fluency: Generate a longer text about each edit's subject.
        ability: Measure what the model can do apart from its edits: perplexities and MMLU.
        skip_bad: Leave malformed records out, and count them.
        sample_seed: What draws the cases.
    """

    model: str
    methods: tuple[str, ...]
    data: tuple[str, ...]
    encoder: str = DEFAULT_ENCODER
    edits: tuple[int, ...] = (1,)
    limit: int | None = None
    seeds: int = 1
    protocols: tuple[Protocol, ...] = ("free",)
    sequential: bool = False
    distractors: str | None = None
    traffic: str | None = None
    traffic_limit: int = 100
    contexts: tuple[Context, ...] = ()
    document_words: int = 300
    conflicts: bool = False
    dtype: str = "auto"
    max_new_tokens: int = 32
    batch_tokens: int = 4_096
    kl: bool = True
    fluency: bool = False
    ability: bool = False
    skip_bad: bool = False
    sample_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("methods", "data", "edits", "protocols"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)) or not value:
                raise ConfigError(f"{name} must be a list with something in it, not {value!r}.")
            if name != "edits":
                for one in value:
                    _check_text(name, one)
            object.__setattr__(self, name, tuple(dict.fromkeys(value)))
        for protocol in self.protocols:
            if protocol not in get_args(Protocol):
                raise ConfigError(f"There is no protocol {protocol!r}. {suggestion(protocol, get_args(Protocol))}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype is {', '.join(DTYPES)}, not {self.dtype!r}.")
        for name in ("model", "encoder", "distractors", "traffic"):
            if getattr(self, name) is not None or name in ("model", "encoder"):
                _check_text(name, getattr(self, name))
        for name in ("sequential", "conflicts", "kl", "fluency", "ability", "skip_bad"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, not {getattr(self, name)!r}.")
        if not isinstance(self.sample_seed, int) or isinstance(self.sample_seed, bool):
            raise ConfigError(f"sample_seed must be a whole number, not {self.sample_seed!r}.")
        if not isinstance(self.contexts, (list, tuple)):
            raise ConfigError(f"contexts must be a list, not {self.contexts!r}.")
        for context in self.contexts:
            if context not in CONTEXTS:
                raise ConfigError(f"contexts are {', '.join(CONTEXTS)}, not {context!r}.")
        object.__setattr__(self, "contexts", tuple(dict.fromkeys(self.contexts)))
        for name in ("seeds", "document_words", "max_new_tokens", "batch_tokens"):
            _check_count(name, getattr(self, name), least=1)
        _check_count("traffic_limit", self.traffic_limit, least=0)
        for count in self.edits:
            _check_count("edits", count, least=1)
        if self.limit is not None:
            _check_count("limit", self.limit, least=1)

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as a JSON object."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> RunSettings:
        """Reads what `to_json` wrote.

        Raises:
            ConfigError: An unknown key, or a value that is missing or wrong.
        """
        known = [one.name for one in fields(cls)]
        for key in mapping:
            if key not in known:
                hint = suggestion(key, known, listing="They have")
                raise ConfigError(f"The settings of a run have no {key!r}. {hint}")
        try:
            return cls(**mapping)
        except TypeError as error:
            raise ConfigError(f"The settings of a run lack something: {error}.") from error

    def command(self) -> list[str]:
        """The words of the command line that asks for the same, without the folders it reads and writes."""
        words = ["memedit", "eval", "--model", self.model]
        for name in ("methods", "data", "edits", "protocols"):
            words += [f"--{name}", ",".join(map(str, getattr(self, name)))]
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in ("model", "methods", "data", "edits", "protocols") or value == one.default:
                continue
            flag = one.name.replace("_", "-")
            if one.name == "contexts":
                words += ["--contexts", ",".join(value)]
            elif isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words += [f"--{flag}", str(value)]
        return words


DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Types of weights that a model can be loaded in."""

COMPARABLE = (
    "model",
    "encoder",
    "limit",
    "sample_seed",
    "contexts",
    "document_words",
    "conflicts",
    "dtype",
    "max_new_tokens",
    "traffic",
    "traffic_limit",
    "distractors",
)
"""Settings that runs which share a folder have to share; the others add to what is there."""


def differing(first: RunSettings, second: RunSettings) -> Sequence[str]:
    """The settings that keep the results of two runs from standing in one report."""
    return [name for name in COMPARABLE if getattr(first, name) != getattr(second, name)]


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{name} must be text that is not empty, not {value!r}.")


def _check_count(name: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be a whole number from {least}, not {value!r}.")
