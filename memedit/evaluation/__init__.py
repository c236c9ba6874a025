"""Batch evaluation: test records in one form, whatever benchmark they come from, and the matching of free answers.

from memedit.evaluation import load_cases, match_answer

dataset = load_cases("counterfact:dev", data="data", limit=100)
for case in dataset.cases:
    ...  # make case.edits, type each probe.prompt, compare with probe.reference
"""

from __future__ import annotations

from memedit.evaluation.cases import (
    CaseSource,
    Condition,
    EvalCase,
    Probe,
    ProbeGroup,
    ProbePrompt,
    Reference,
    Turn,
    coinciding_probes,
    conflicting,
)
from memedit.evaluation.contexts import after_document, after_passage, after_turns
from memedit.evaluation.datasets.registry import DATASETS, DataFile, Dataset, DatasetFormat, load_cases
from memedit.evaluation.matching import Match, first_sentence, match_answer, normalise_answer, read_yes_no

__all__ = [
    "DATASETS",
    "CaseSource",
    "Condition",
    "DataFile",
    "Dataset",
    "DatasetFormat",
    "EvalCase",
    "Match",
    "Probe",
    "ProbeGroup",
    "ProbePrompt",
    "Reference",
    "Turn",
    "after_document",
    "after_passage",
    "after_turns",
    "coinciding_probes",
    "conflicting",
    "first_sentence",
    "load_cases",
    "match_answer",
    "normalise_answer",
    "read_yes_no",
]
