"""In what words the right edit is best put before a prompt: accuracy, side effects and cost of each in-context form.

The edit is handed over, so that nothing here depends on routing. Prompt sets, for raw and for templated prompts:

- ``edit``: CounterFact's own prompt (raw), HalluEditBench's own question (chat);
- ``question``, ``rephrased question``: zsRE's, raw;
- ``paraphrase``: CounterFact's rephrase prompt, some of them behind an unrelated sentence, and HalluEditBench's
  paraphrased question;
- ``unrelated``: a prompt about something else with the edit wrongly handed over (CounterFact's locality prompt,
  HalluEditBench's locality question): how often the edit is obeyed all the same, so that low figures are good ones.

``start`` is the share of continuations that begin with the target (case, quotes and articles aside), ``sentence`` the
share with the target anywhere in the first sentence, ``tokens`` the context's length, ``time`` the ratio to the base
model's own time on the same prompts.

Measured with SmolLM2-135M-Instruct (float32, two busy cores): the two defaults on 50 records drawn anew. Of them 2
CounterFact and 11 HalluEditBench records had also served to choose the forms; on the other 39 of the latter the figures
are 92.3% (edit) and 94.9% (paraphrase). All rows but "raw unrelated" were run just before forms looked for the fact's
subject in the question, which can alter "chat unrelated" alone (3 of its 50 questions leave the subject out)::

    python benchmarks/prompt_forms.py --data ../shared/data --records 50 --seed 11 --forms repeat repeat-turns

    prompts                form            start  sentence  tokens
    raw edit               repeat         100.0%    100.0%    17.8
    raw paraphrase         repeat          96.0%     98.0%    33.1
    raw unrelated          repeat          42.0%     48.0%    17.8    (94.0% were the subject not looked for)
    chat edit              repeat-turns    92.0%     92.0%    74.9
    chat paraphrase        repeat-turns    96.0%     96.0%    74.9
    chat cloze paraphrase  repeat-turns    96.0%     96.0%    71.5
    chat unrelated         repeat-turns    94.0%     96.0%    72.3    (other questions about the same subject)

A plain prompt that asks was found to be answered worse than one that goes on, above all where it is the edit's own, so
that the fact and the question were one line; such lines are labelled as prompts since, each by itself. 40 records, of
both, in bfloat16, with SmolLM2-135M-Instruct and with Gemma-3-270m, a base model; before -> after, ``start``::

    python benchmarks/prompt_forms.py --records 40 --seed 11 --dtype bfloat16 --forms repeat --model MODEL

    raw edit                SmolLM2 100.0% ->  97.5%    Gemma 100.0% -> 100.0%
    raw paraphrase                   95.0% ->  95.0%           92.5% ->  92.5%
    raw question                     75.0% ->  95.0%           65.0% -> 100.0%
    raw rephrased question           95.0% ->  97.5%           92.5% ->  95.0%
    raw unrelated                    45.0% ->  45.0%           47.5% ->  47.5%

All forms side by side, 24 records, which gives the ratio of times too::

    python benchmarks/prompt_forms.py --records 24 --seed 11 --sets "raw paraphrase" "chat paraphrase"

    raw paraphrase         base             0.0%      0.0%     0.0   1.00
    raw paraphrase         plain           37.5%     45.8%    11.0   1.17
    raw paraphrase         ike             62.5%     66.7%   110.6   3.11
    raw paraphrase         repeat          95.8%     95.8%    33.0   1.77
    chat paraphrase        base             0.0%      0.0%     0.0   1.00
    chat paraphrase        plain            4.2%     45.8%    14.5   0.85
    chat paraphrase        ike             16.7%     54.2%   143.5   1.78
    chat paraphrase        repeat-turns    95.8%     95.8%    75.0   1.69

What was tried on other records on the way, ``start`` on 100 edit prompts and paraphrases: a labelled fact without the
question 95% and 35% (38% on unrelated prompts); with one demonstration 91% and 48%, with two 82% and 49%; labelled fact
and question 97% and 96%; the same without labels 80% and 78% (40 records). In chat, on 30 paraphrased questions and 30
cloze paraphrases: the fact's turn and the question's turn once 73% and 90%, the question's turn twice 100% and 97%, the
question's turn twice without the fact's 77% and 93%; the labelled lines inside the user's turn
10% on the paraphrased questions (60% in the first sentence).
These samples are small: differences of five points or less say nothing.

With ``--held-out N`` the questions are made of what training holds out (CounterFact's training split, the relations and
their facts), in a conversation, ``N`` of each kind: also yes/no, reversed and chained questions, other names, and near
misses about the same subject or relation. With each form its answers are also read as the router would let them be: the
question is repeated only from some similarity to the edit on (``alike``), and the table has a line for each limit. With
``--demonstrations 0 1 2 ...`` the labelled fact follows so many of the project's demonstrations, the nearest ones.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from classifiers import SentenceEncoder, TextEncoder
from memedit.chat_format import ChatFormat
from memedit.demonstrations import Demonstration, DemonstrationSet, default_demonstrations
from memedit.known_models import DEFAULT_ENCODER, DEFAULT_MODEL
from memedit.prompts import (
    CHAT_FORM,
    IKE_FORM,
    PLAIN_FORM,
    RAW_FORM,
    InContextForm,
    Neutraliser,
    context_ids,
)
from memedit.pulling import resolve
from memedit.queries import question_query
from memory_store import Edit

NEW_TOKENS = 16
BATCH = 32
_LEADING = re.compile(r"^[\s\"'“”‘’*_.,:(\[–-]+")
_ARTICLE = re.compile(r"^(?:the|an|a) ")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n")


@dataclass(frozen=True)
class Probe:
    """One prompt with the edit that is handed over.

    Attributes:
        text: The prompt.
        prompt: The edit's.
        target: The edit's.
        subject: The edit's.
        aliases: The edit's.
        answer: What is to be said, where that is not the target.
    """

    text: str
    prompt: str
    target: str
    subject: str
    aliases: tuple[str, ...] = ()
    answer: str | None = None

    @property
    def wanted(self) -> str:
        """What is to be said."""
        return self.target if self.answer is None else self.answer


@dataclass(frozen=True)
class Setting:
    """One set of prompts, raw or templated."""

    name: str
    probes: Sequence[Probe]
    chat: bool


def settings(data: Path, records: int, seed: int) -> list[Setting]:
    """The prompt sets, a fixed random sample of each file."""
    facts = _sample(data / "counterfact" / "train.jsonl", records, seed)
    questions = _sample(data / "halluedit" / "dev.jsonl", records, seed, first=200)

    def of_facts(field: str) -> list[Probe]:
        return [Probe(fact[field], fact["prompt"], fact["target_new"], fact["subject"]) for fact in facts]

    asked = [one for one in _sample(data / "zsre" / "train.jsonl", 4 * records, seed) if one["rephrase"].endswith("?")]

    def of_asked(field: str) -> list[Probe]:
        return [Probe(one[field], one["src"], one["alt"], one["subject"]) for one in asked[:records]]

    def of_questions(field: str) -> list[Probe]:
        return [Probe(one[field], one["question"], one["object"], one["subject"]) for one in questions]

    return [
        Setting("raw edit", of_facts("prompt"), chat=False),
        Setting("raw paraphrase", of_facts("rephrase_prompt"), chat=False),
        Setting("raw question", of_asked("src"), chat=False),
        Setting("raw rephrased question", of_asked("rephrase"), chat=False),
        Setting("raw unrelated", of_facts("locality_prompt"), chat=False),
        Setting("chat edit", of_questions("question"), chat=True),
        Setting("chat paraphrase", of_questions("paraphrased_question"), chat=True),
        Setting("chat cloze paraphrase", of_facts("rephrase_prompt"), chat=True),
        Setting("chat unrelated", of_questions("locality_question"), chat=True),
    ]


IN_SCOPE = ("edit", "paraphrase", "other form", "other name", "yes", "no", "reversed", "chain")
NEAR = ("same subject", "same relation")


def held_out(data: Path, records: int) -> list[tuple[str, Probe]]:
    """Questions made of what training holds out, so many of each kind, and the kind of each."""
    from training.answers import ExampleMaker
    from training.material import gather
    from training.wording import asked

    _, material, _ = gather(data)
    maker = ExampleMaker(material, pairs=None, seed=11)
    found: dict[str, list[Probe]] = {kind: [] for kind in (*IN_SCOPE, *NEAR)}
    number = 0
    while any(len(found[kind]) < records for kind in IN_SCOPE):
        example, number = maker.example(number), number + 1
        probes = found.get(example.kind, [])
        if example.conversational and example.kind in IN_SCOPE and len(probes) < records:
            shown = example.facts[0]
            answer = example.answer.rstrip(".")
            if example.kind in ("yes", "no"):
                answer = answer.partition(",")[0]
            probes.append(Probe(example.query, shown.prompt, shown.target, shown.subject or "", shown.aliases, answer))
    rng = random.Random(11)
    related = [fact for fact in material.facts if fact.relation in material.bank.relations]
    for fact in rng.sample(related, min(records, len(related))):
        relation = material.bank.relations[fact.relation or ""]
        about = material.bank.about(relation.subject)
        others = [one for one in about if not material.bank.overlapping(one.name, relation.name)]
        if others:
            other = asked(rng.choice(others), fact.subject, rng)
            found["same subject"].append(Probe(other, fact.prompt, fact.target, fact.subject))
    beside = [fact for fact in material.facts if fact.source == "counterfact" and fact.neighbours]
    for fact in rng.sample(beside, min(records, len(beside))):
        found["same relation"].append(Probe(rng.choice(fact.neighbours), fact.prompt, fact.target, fact.subject))
    return [(kind, probe) for kind, probes in found.items() for probe in probes]


class Bench:
    """A model and what is needed to put forms before its prompts."""

    def __init__(self, folder: Path, *, dtype: str = "float32") -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self.neutral = Neutraliser.for_tokenizer(self.tokenizer)
        self.chat_format = ChatFormat.from_tokenizer(self.tokenizer)

    def row(
        self,
        probe: Probe,
        form: InContextForm | None,
        *,
        chat: bool,
        demonstrations: Sequence[Demonstration] | None = None,
    ) -> tuple[list[int], int]:
        """Token ids of the prompt with its context, and how many of them are context."""
        if demonstrations is None:
            demonstrations = default_demonstrations()[: form.demonstrations if form else 0]
        if chat:
            return self._templated_row(probe, form, demonstrations)
        segments = (
            form.raw_context(
                (probe,),
                question=question_query(probe.text).text,
                neutral=self.neutral,
                demonstrations=demonstrations,
            )
            if form
            else ()
        )
        context = context_ids(segments, self.tokenizer)
        own = list(self.tokenizer(probe.text)["input_ids"])
        begin = int(own[:1] == [self.tokenizer.bos_token_id])  # where a text begins with a token, it stays in front
        return own[:begin] + context + own[begin:], len(context)

    def _templated_row(
        self, probe: Probe, form: InContextForm | None, demonstrations: Sequence[Demonstration]
    ) -> tuple[list[int], int]:
        templated = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": probe.text}], tokenize=False, add_generation_prompt=True
        )
        turns = self.chat_format.parse(templated) if self.chat_format else None
        if turns is None or self.chat_format is None:
            raise SystemExit("the model has no chat template that can be read")
        segments = (
            form.chat_context(
                (probe,),
                question=probe.text,
                neutral=self.neutral,
                chat_format=self.chat_format,
                demonstrations=demonstrations,
            )
            if form
            else ()
        )
        context = context_ids(segments, self.tokenizer)
        before, after = templated[: turns[-1].start], templated[turns[-1].start :]
        return self._own_ids(before) + context + self._own_ids(after), len(context)

    def _own_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def continuations(self, rows: Sequence[Sequence[int]], stop: Sequence[str]) -> list[str]:
        """Greedy continuations in the rows' order, cut at the stop strings."""
        import torch

        pad = self.tokenizer.pad_token_id
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        texts = [""] * len(rows)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            width = max(len(rows[place]) for place in places)
            missing = [width - len(rows[place]) for place in places]
            ids = torch.tensor([[pad] * gap + list(rows[place]) for place, gap in zip(places, missing, strict=True)])
            mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in missing])
            with torch.inference_mode():
                out = self.model.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=pad
                )
            for place, row in zip(places, out, strict=True):
                text = self.tokenizer.decode(row[width:], skip_special_tokens=True)
                texts[place] = re.split("|".join(map(re.escape, stop)), text)[0] if stop else text
        return texts


def begins_with(text: str, target: str) -> bool:
    """Whether a continuation begins with the target, case, quotes and articles aside."""
    return _plain(text).startswith(_plain(target))


def holds(text: str, target: str) -> bool:
    """Whether a continuation's first sentence holds the target."""
    return _plain(target) in " ".join(_SENTENCE_END.split(text.strip())[0].casefold().split())


def _plain(text: str) -> str:
    return _ARTICLE.sub("", _LEADING.sub("", " ".join(text.casefold().split())))


def _sample(path: Path, records: int, seed: int, first: int | None = None) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines()[:first]
    return [json.loads(line) for line in random.Random(seed).sample(lines, min(records, len(lines)))]


def _forms(chat: bool) -> list[InContextForm | None]:
    return [None, PLAIN_FORM, IKE_FORM, CHAT_FORM if chat else RAW_FORM]


LABELLED = replace(CHAT_FORM, name="labelled", repetitions=0)
"""The fact in a labelled line, the question not repeated."""

LIMITS = (0.0, 0.6, 0.7, 0.75, 0.81, 0.85, 0.9, 1.01)
"""Similarities from which on the question may be repeated; from 0 on always, from 1.01 on never."""


def compare_limits(bench: Bench, encoder: TextEncoder, probes: Sequence[tuple[str, Probe]]) -> list[dict[str, Any]]:
    """What is said to each probe with the question repeated, with the labelled fact and with the bare fact."""
    records: list[dict[str, Any]] = [
        {"kind": kind, "similarity": likeness(encoder, probe), **vars(probe), "wanted": probe.wanted}
        for kind, probe in probes
    ]
    for form in (CHAT_FORM, LABELLED, PLAIN_FORM):
        made = [bench.row(probe, form, chat=True) for _, probe in probes]
        texts = bench.continuations([ids for ids, _ in made], ())
        for record, text, (_, length) in zip(records, texts, made, strict=True):
            record[form.name], record[f"{form.name} tokens"] = text, length
    return records


def likeness(encoder: TextEncoder, probe: Probe) -> float:
    """The cosine by which a router would find the probe's edit."""
    edit = Edit(prompt=probe.prompt, target=probe.target, subject=probe.subject, aliases=probe.aliases)
    windows = encoder.encode(list(question_query(probe.text).windows))
    return float((windows @ encoder.encode([one.text for one in edit.texts()]).T).max())


def print_limits(records: Sequence[dict[str, Any]]) -> None:
    """For each kind and limit the share answered rightly, or of near misses the share not answered with the target."""
    print(f"{'kind':15} {'n':>3} {'like':>5} {'otherwise':9}", *(f"{limit:>6.2f}" for limit in LIMITS))
    for kind in dict.fromkeys(record["kind"] for record in records):
        some = [record for record in records if record["kind"] == kind]
        near = sum(record["similarity"] for record in some) / len(some)
        for other in (LABELLED.name, PLAIN_FORM.name):
            shares = [
                sum(_good(record, CHAT_FORM.name if record["similarity"] >= limit else other) for record in some)
                for limit in LIMITS
            ]
            cells = (f"{share / len(some):>6.1%}" for share in shares)
            print(f"{kind:15} {len(some):>3} {near:>5.2f} {other:9}", *cells)


def _good(record: dict[str, Any], form: str) -> bool:
    if record["kind"] in NEAR:
        return not holds(record[form], record["target"])
    return begins_with(record[form], record["wanted"])


def compare_demonstrations(
    bench: Bench, encoder: TextEncoder, probes: Sequence[tuple[str, Probe]], counts: Sequence[int]
) -> None:
    """Prints what so many of the nearest demonstrations before the labelled fact make of each kind."""
    shown = DemonstrationSet(default_demonstrations(), encoder=encoder)
    kinds = list(dict.fromkeys(kind for kind, _ in probes))
    print(f"{'count':>5} {'tokens':>7}", *(f"{kind:>13}" for kind in kinds), flush=True)
    for count in counts:
        made = [
            bench.row(probe, LABELLED, chat=True, demonstrations=tuple(reversed(shown.nearest(probe.text, count))))
            for _, probe in probes
        ]
        texts = bench.continuations([ids for ids, _ in made], ())
        good: dict[str, list[bool]] = {kind: [] for kind in kinds}
        for (kind, probe), text in zip(probes, texts, strict=True):
            record = {"kind": kind, "target": probe.target, "wanted": probe.wanted, "text": text}
            good[kind].append(_good(record, "text"))
        tokens = sum(length for _, length in made) / len(made)
        print(f"{count:>5} {tokens:>7.1f}", *(f"{sum(one) / len(one):>13.1%}" for one in good.values()), flush=True)


def main() -> None:
    """Print the table; with ``--failures``, the continuations that missed the target too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a known name or a folder")
    parser.add_argument("--records", type=int, default=150)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--forms", nargs="*", help="only these, by name; 'base' is the model without context")
    parser.add_argument("--sets", nargs="*", help="only prompt sets of these names")
    parser.add_argument("--failures", action="store_true")
    parser.add_argument("--held-out", type=int, help="instead: so many questions of each kind that training holds out")
    parser.add_argument("--demonstrations", type=int, nargs="*", help="with --held-out: counts to compare")
    parser.add_argument("--kinds", nargs="*", help="with --held-out: only these kinds")
    parser.add_argument("--json", type=Path, help="with --held-out: where what was said is written")
    parser.add_argument("--dtype", default="float32", help="the model's precision")
    arguments = parser.parse_args()
    bench = Bench(resolve(arguments.model), dtype=arguments.dtype)
    if arguments.held_out:
        encoder = SentenceEncoder(resolve(DEFAULT_ENCODER))
        probes = [
            one for one in held_out(arguments.data, arguments.held_out) if one[0] in (arguments.kinds or (one[0],))
        ]
        if arguments.demonstrations:
            compare_demonstrations(bench, encoder, probes, arguments.demonstrations)
            return
        records = compare_limits(bench, encoder, probes)
        print_limits(records)
        if arguments.json:
            arguments.json.write_text(json.dumps(records, indent=1))
        return
    print(f"{'prompts':22} {'form':14} {'start':>6} {'sentence':>9} {'tokens':>7} {'time':>6}", flush=True)
    for setting in settings(arguments.data, arguments.records, arguments.seed):
        if arguments.sets and setting.name not in arguments.sets:
            continue
        base_seconds = 0.0
        for form in _forms(setting.chat):
            name = form.name if form else "base"
            if arguments.forms and name not in arguments.forms:
                continue
            made = [bench.row(probe, form, chat=setting.chat) for probe in setting.probes]
            started = time.perf_counter()
            texts = bench.continuations([ids for ids, _ in made], form.stop if form and not setting.chat else ())
            seconds = time.perf_counter() - started
            base_seconds = base_seconds if form else seconds
            pairs = list(zip(texts, setting.probes, strict=True))
            start = sum(begins_with(text, probe.target) for text, probe in pairs) / len(pairs)
            sentence = sum(holds(text, probe.target) for text, probe in pairs) / len(pairs)
            tokens = sum(length for _, length in made) / len(made)
            ratio = f"{seconds / base_seconds:6.2f}" if base_seconds else "     -"
            print(f"{setting.name:22} {name:14} {start:6.1%} {sentence:9.1%} {tokens:7.1f} {ratio}", flush=True)
            if arguments.failures:
                for text, probe in pairs:
                    if not begins_with(text, probe.target):
                        print(f"    {probe.text[-80:]!r} [{probe.prompt} {probe.target}] -> {text!r}")


if __name__ == "__main__":
    main()
