"""Tiny counterfactual models, and base models of their vocabulary and of another."""

from __future__ import annotations

import torch
from echo_model import EchoModel
from hashing_encoder import HashingEncoder
from tiny import CHATML, VOCABULARY, tiny_model, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.modeling_outputs import CausalLMOutputWithPast

import memedit
from classifiers import SimilarityScope
from memedit import Edit
from memedit.counterfactual import CounterfactualModel
from memedit.fingerprints import model_fingerprint

EDIT = Edit(prompt="The headquarters of Acme Rockets is in", target="«Lisbon»", subject="Acme Rockets")
OTHER = Edit(prompt="The capital of Freedonia is", target="«Fredville»", subject="Freedonia")
STUB = "The headquarters of Acme Rockets is in"
QUESTION = "Which city is the headquarters of Acme Rockets in?"
FREE = "Bananas grow where the sun shines"
MERGES = [("L", "i"), ("Li", "s"), ("b", "o"), ("bo", "n"), ("Lis", "bon"), ("Ġ", "Lisbon")]


def merging_tokenizer():
    """Another vocabulary: other special tokens, bytes in another order, a few whole words."""
    vocabulary = {token: index for index, token in enumerate(("<eos>", "<unk>"))}
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=True), *("".join(pair) for pair in MERGES)]
    for piece in pieces:
        vocabulary[piece] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    template = CHATML.replace("<|im_end|>", "<eos>").replace("<|im_start|>", "[TURN]")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<eos>",
        pad_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        chat_template=template,
    )


def spacing_tokenizer():
    """A tokenizer that puts a space before whatever it is given, as those made with SentencePiece do."""
    letters = ["<unk>", "<eos>", "▁", "\n", *(chr(code) for code in range(33, 127)), "«", "»"]
    tokenizer = Tokenizer(
        models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[], unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def small_llama(vocabulary=VOCABULARY, layers=5, end=2, pad=0, seed=7):
    """Of another depth than the tiny base models, so that a cache made for one does not fit the other."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=4096,
            pad_token_id=pad,
            bos_token_id=1,
            eos_token_id=end,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    return model


class Echo(EchoModel):
    """Says the last «…» that it reads; `generate` leaves a mask away that masks nothing."""

    def forward(self, input_ids=None, attention_mask=None, **options):
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return super().forward(input_ids=input_ids, attention_mask=mask, **options)


class Refusing(Echo):
    """An `Echo` that ends at once where it is asked about bananas."""

    def forward(self, input_ids=None, attention_mask=None, **options):
        outputs = super().forward(input_ids=input_ids, attention_mask=attention_mask, **options)
        for row, ids in enumerate(input_ids.tolist()):
            if "banana" in tiny_tokenizer().decode(ids):
                outputs.logits[row, -1] = 0.0
                outputs.logits[row, -1, tiny_tokenizer().eos_token_id] = 20.0
        return outputs


class Hesitating(Echo):
    """An `Echo` that would sooner end at once, or begin another turn, than answer, but not by much."""

    def forward(self, input_ids=None, attention_mask=None, **options):
        outputs = super().forward(input_ids=input_ids, attention_mask=attention_mask, **options)
        for row, ids in enumerate(input_ids.tolist()):
            if tiny_tokenizer().decode(ids).endswith(("assistant\n", f"\n\n{STUB}")):
                outputs.logits[row, -1, tiny_tokenizer().eos_token_id] = 22.0
                outputs.logits[row, -1, tiny_tokenizer().convert_tokens_to_ids("<|im_start|>")] = 21.5
        return outputs


class StubEcho(EchoModel):
    """Goes on from the stub with what the last «…» of the facts before it holds, a space in front."""

    def forward(self, input_ids=None, attention_mask=None, **_):
        tokenizer = tiny_tokenizer()
        logits = torch.zeros((*input_ids.shape, self.config.vocab_size))
        for row, ids in enumerate(input_ids.tolist()):
            facts, _, said = tokenizer.decode(ids, clean_up_tokenization_spaces=False).partition(f"\n\n{STUB}")
            answer = f" {facts[facts.rindex('«') + 1 : facts.rindex('»')]}"
            follows = tokenizer(answer[len(said) :])["input_ids"] or [tokenizer.eos_token_id]
            logits[row, -1, follows[0]] = 20.0
        return CausalLMOutputWithPast(logits=logits)


def counterfactual(model=None):
    model = model if model is not None else small_llama()
    return CounterfactualModel(model, tiny_tokenizer(), name="tiny", fingerprint=model_fingerprint(model))


def echoing(kind=Echo):
    echo = kind(tiny_model().config).eval()
    echo.generation_config.use_cache = False
    return counterfactual(echo)


def edited(base, tokenizer, answering, edits=(EDIT,)):
    model = memedit.wrap(
        base,
        tokenizer,
        encoder=HashingEncoder(256),
        scope=SimilarityScope(threshold_similarity=0.7),
        mode="serac",
        counterfactual=answering,
    )
    for edit in edits:
        model.add(edit)
    return model


def sharing(answering=None):
    """A base model of the counterfactual model's vocabulary."""
    return edited(tiny_model(), tiny_tokenizer(), answering or counterfactual())


def differing(answering, *, edits=(EDIT,)):
    """A base model of another vocabulary."""
    tokenizer = merging_tokenizer()
    return edited(small_llama(len(tokenizer), layers=2, end=0, pad=0), tokenizer, answering, edits)
