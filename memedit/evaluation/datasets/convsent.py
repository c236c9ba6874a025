"""ConvSent: edits that change the sentiment about a topic.

The benchmark is of Mitchell et al. 2022, *Memory-Based Model Editing at Scale*, and part of KnowEdit.

No published file has been read; the loader follows the description of the format: ``ent``, ``pos`` and ``neg``. An
edit says "Topic: {ent} Sentiment:" and a sentiment, drawn for each topic by the seed. The thirteen wordings ask for
an opinion of the topic; the next topic of the file is asked about in the first of them, for locality. Replies are
rated by their likelihood: ``answers`` are those of the wanted sentiment, ``old_answers`` the others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from memedit.edit_files import BadRecord
from memedit.errors import InvalidCaseError
from memedit.evaluation.cases import EvalCase
from memedit.evaluation.datasets.fields import Fields
from memedit.evaluation.datasets.probes import probe
from memedit.evaluation.datasets.source import RawRecord, Source
from memory_store import Edit

_STANCES = (
    "opinion of",
    "stance on",
    "position on",
    "attitude about",
    "view on",
    "take on",
    "impression of",
    "assessment of",
    "judgment of",
    "sentiment of",
)
_WORDINGS = (
    "What do you think of {}?",
    "What do you feel about {}?",
    "How do you view {}?",
    *(f"What is your {stance} {{}}?" for stance in _STANCES),
)


def load(source: Source) -> Iterator[EvalCase | BadRecord]:
    """Reads ConvSent records; the file is read twice, the first time for its topics."""
    topics = [
        topic
        for record in source.records()
        if isinstance(record, RawRecord) and (topic := record.fields.identity("ent")) is not None
    ]
    following = dict(zip(topics, [*topics[1:], *topics[:1]], strict=True))
    return source.convert(lambda record: _case(record, following, source.seed))


def _case(record: RawRecord, following: dict[str, str], seed: int) -> EvalCase:
    fields = record.fields
    topic = fields.text("ent")
    wanted = random.Random(f"{seed}\n{topic}").choice(("positive", "negative"))
    replies = {"positive": _replies(fields, "pos"), "negative": _replies(fields, "neg")}
    unwanted = "negative" if wanted == "positive" else "positive"
    probes = [
        probe(
            "opinion",
            wording.replace("{}", topic),
            replies[wanted],
            old=replies[unwanted],
            answer_form="replies",
            of_edit=0,
            subject=topic,
        )
        for wording in _WORDINGS
    ]
    other = following[fields.identity("ent") or topic]
    if other != topic:
        probes.append(probe("same_relation", _WORDINGS[0].replace("{}", other), subject=other, answer_form="replies"))
    return EvalCase(
        id=str(record.source.line),
        source=record.source,
        edits=(Edit(prompt=f"Topic: {topic} Sentiment:", target=wanted, subject=topic),),
        probes=tuple(probes),
    )


def _replies(fields: Fields, key: str) -> tuple[str, ...]:
    replies = fields.texts(key)
    if not replies:
        raise InvalidCaseError(f"the field '{fields.name(key)}' holds no replies.")
    return replies
