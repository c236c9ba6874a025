"""A GGUF file made into a transformers folder in full precision, once.

transformers dequantises the weights; what its conversion loses of configuration and tokenizer is repaired
here, so that the folder behaves as the publisher's own does. The weights stay those of the quantised file:
near the publisher's, not equal to them. It knows nothing of where the file came from.
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from memedit.errors import DownloadError

__all__ = ["dequantise"]

_PRE_TOKENIZER_KEY = b"tokenizer.ggml.pre"
_GGUF_STRING = 8


def dequantise(gguf: Path, folder: Path, *, context_length: int | None = None) -> None:
    """Writes config, float32 safetensors, tokenizer and chat template of a GGUF file to a folder.

    The work is done in a process of its own: it takes over a gigabyte for the model of 135 million
    parameters, and the GGUF reader draws a progress bar that cannot be switched off.

    Args:
        gguf: The GGUF file of a causal language model.
        folder: Where to write; it is created.
        context_length: The most tokens the model reads, for the tokenizer.

    Raises:
        DownloadError: transformers cannot read the file.
    """
    command = [sys.executable, "-W", "ignore", "-m", "memedit.dequantise", str(gguf), str(folder)]
    packages = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(  # noqa: S603 - this very file, under this interpreter
        [*command, str(context_length or 0)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DownloadError(f"{gguf.name} could not be dequantised (code {done.returncode}): {reason}")


def _convert(gguf: Path, folder: Path, *, context_length: int | None) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # save_pretrained refuses a model that it takes for quantised; this one no longer is
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    _repair_config(model.config)
    _repair_tokenizer(tokenizer, pre_tokenizer=_declared_pre_tokenizer(gguf), context_length=context_length)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _repair_config(config: Any) -> None:
    """Rounds what was stored in float32, and drops what is the file's and not the model's."""
    if hasattr(config, "rms_norm_eps"):
        config.rms_norm_eps = float(f"{config.rms_norm_eps:.6g}")
    for foreign in ("_model_name_or_path", "unk_token_id"):
        if hasattr(config, foreign):
            delattr(config, foreign)


def _repair_tokenizer(tokenizer: Any, *, pre_tokenizer: str | None, context_length: int | None) -> None:
    r"""Restores what the conversion to a tokenizer leaves out.

    A GGUF file names its pre-tokenizer, but transformers gives every byte-level BPE that of GPT-2. "smollm"
    splits digits one by one *before* the words are split; without it white space before a digit falls into
    other tokens than the model was trained on ("\n\n1." is the plainest case, and numbered lists are full of
    it).
    """
    if pre_tokenizer == "smollm":
        from tokenizers import pre_tokenizers

        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
            ]
        )
    if context_length is not None:
        tokenizer.model_max_length = context_length


def _declared_pre_tokenizer(gguf: Path) -> str | None:
    """Reads one entry of the header: key, type and length as little-endian integers, text.

    gguf's own reader builds an array for each of 100,000 vocabulary entries and merges, which takes seconds.
    """
    with gguf.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(_PRE_TOKENIZER_KEY)
        if start < 0:
            return None
        at = start + len(_PRE_TOKENIZER_KEY)
        kind, length = struct.unpack_from("<IQ", content, at)
        if kind != _GGUF_STRING:
            return None
        return content[at + 12 : at + 12 + length].decode()


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]), context_length=int(sys.argv[3]) or None)
