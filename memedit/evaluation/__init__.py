"""Batch evaluation: test records in one form, editing methods compared on them, figures with intervals, a report.

from memedit.evaluation import evaluate

report = evaluate("smollm2-135m-instruct", methods=["ike", "scr"], cases="counterfact:dev", data="data", limit=50)
for figure in report.find(measure="reliability", kind=None, reading="anywhere"):
    ...  # figure.value beside figure.before, the unedited model's
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
from memedit.evaluation.comparing import Comparison, Difference, compare
from memedit.evaluation.contexts import after_document, after_passage, after_turns
from memedit.evaluation.datasets.registry import DATASETS, DataFile, Dataset, DatasetFormat, load_cases
from memedit.evaluation.figures import CalibrationBin, CellSummary, EvalReport, Figure, RiskPoint
from memedit.evaluation.files import read_report
from memedit.evaluation.judge import Judge
from memedit.evaluation.matching import Match, first_sentence, match_answer, normalise_answer, read_yes_no
from memedit.evaluation.reporting import report_of
from memedit.evaluation.results import (
    CaseResult,
    Cell,
    EditingCost,
    ForcedScore,
    Likelihoods,
    ProbeResult,
    Routed,
)
from memedit.evaluation.runfolder import RunFolder
from memedit.evaluation.runner import evaluate, republish
from memedit.evaluation.settings import RunSettings

__all__ = [
    "DATASETS",
    "CalibrationBin",
    "CaseResult",
    "CaseSource",
    "Cell",
    "CellSummary",
    "Comparison",
    "Condition",
    "DataFile",
    "Dataset",
    "DatasetFormat",
    "Difference",
    "EditingCost",
    "EvalCase",
    "EvalReport",
    "Figure",
    "ForcedScore",
    "Judge",
    "Likelihoods",
    "Match",
    "Probe",
    "ProbeGroup",
    "ProbePrompt",
    "ProbeResult",
    "Reference",
    "RiskPoint",
    "Routed",
    "RunFolder",
    "RunSettings",
    "Turn",
    "after_document",
    "after_passage",
    "after_turns",
    "coinciding_probes",
    "compare",
    "conflicting",
    "evaluate",
    "first_sentence",
    "load_cases",
    "match_answer",
    "normalise_answer",
    "read_report",
    "read_yes_no",
    "report_of",
    "republish",
]
