"""A run with a judge: a real HTTP server stands for the endpoint."""

from __future__ import annotations

import pytest
from test_evaluation import by_prompt, subject
from test_flattery import dataset, share
from test_judge import Reply, environment, judge_of, server  # noqa: F401 - fixtures

from memedit.errors import JudgeError
from memedit.evaluation.runner import evaluate


def test_verdicts_are_a_reading_of_their_own(server, tmp_path):  # noqa: F811
    judge = judge_of(server, tmp_path / "verdicts.db")
    report = evaluate(subject(), methods=by_prompt(), cases=dataset(), out=tmp_path / "run", judge=judge)
    assert share(report, "planted", "reliability", edits=1, reading="verdict") == 1.0
    assert share(report, "planted", "generalization", edits=1, reading="verdict") == 0.0
    assert share(report, "base", "reliability", edits=0, reading="verdict") == 0.0
    asked = len(server.requests)
    evaluate(subject(), methods=by_prompt(), cases=dataset(), out=tmp_path / "run", judge=judge)
    assert len(server.requests) == asked, "a verdict that is there is not asked for again"


def test_a_judge_that_fails_costs_no_answer(server, tmp_path):  # noqa: F811
    server.answer = lambda request, number: Reply(status=500)
    judge = judge_of(server, tmp_path / "verdicts.db")
    first = by_prompt()
    with pytest.raises(JudgeError):
        evaluate(subject(), methods=first, cases=dataset(), out=tmp_path / "run", judge=judge)
    assert first.seen
    again = by_prompt()
    report = evaluate(subject(), methods=again, cases=dataset(), out=tmp_path / "run")
    assert again.seen == []
    assert share(report, "planted", "reliability", edits=1) == 1.0


def test_a_finished_run_is_judged_afterwards(server, tmp_path):  # noqa: F811
    evaluate(subject(), methods=by_prompt(), cases=dataset(), out=tmp_path / "run")
    judge = judge_of(server, tmp_path / "verdicts.db")
    report = evaluate(subject(), methods=by_prompt(), cases=dataset(), out=tmp_path / "run", judge=judge)
    assert share(report, "planted", "reliability", edits=1, reading="verdict") == 1.0
