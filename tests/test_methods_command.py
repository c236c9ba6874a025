"""``memedit methods``: what it prints for a person, for a pipe and as JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from memedit.cli import app
from memedit.commands.exits import ExitCode
from memedit.editors.registry import method_info, method_infos, method_names

ROOT = Path(__file__).resolve().parent.parent


def test_each_method_is_one_line_in_a_pipe() -> None:
    result = CliRunner().invoke(app, ["methods"])
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == list(method_names())
    assert {len(row) for row in rows} == {9}
    by_name = {row[0]: row for row in rows}
    oracle, base = method_info("ice-oracle"), by_name["base"]
    assert by_name["ice-oracle"] == [
        *("ice-oracle", oracle.title, "external knowledge", "memory", "yes", "no", "yes"),
        *(oracle.models, oracle.paper),
    ]
    assert base[2:5] == ["none", "nothing", "no"]
    assert by_name["serac"][5] == "yes"
    assert by_name["ft-m"][3] == "weights"


def test_json_has_all_that_is_known() -> None:
    result = CliRunner().invoke(app, ["methods", "--json"])
    assert result.exit_code == 0, result.output
    assert [json.loads(line) for line in result.stdout.splitlines()] == [asdict(info) for info in method_infos()]


def test_a_person_sees_a_table_in_which_the_oracles_stand_out() -> None:
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": "1"}
    above, below = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "memedit", "methods"], stdout=below, cwd=ROOT, env=environment)
    os.close(below)
    printed = b""
    try:
        while part := os.read(above, 65536):
            printed += part
    except OSError:  # the other end of a terminal that is closed
        pass
    os.close(above)
    assert process.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.decode())
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["method", "changes", "what", "it", "does"]
    # one paragraph a method
    paragraphs = {words[0]: " ".join(words) for part in re.split(r"\n\s*\n", text) if len(words := part.split()) > 1}
    for info in method_infos():
        if info.name == "base":
            continue  # its paragraph begins with the heading
        assert info.title in paragraphs[info.name]
        assert info.paper in paragraphs[info.name]
        assert ("told the edit of each prompt" in paragraphs[info.name]) == info.oracle
        assert ("trained beforehand" in paragraphs[info.name]) == info.needs_training


def test_help_lists_it_under_evaluation() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert re.search(r"Evaluation[^╰]*methods\s+List the editing methods", result.stdout)


def test_a_method_that_cannot_be_loaded_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "broken_methods-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-methods\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[memedit.editors]\nbroken = no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = CliRunner().invoke(app, ["methods", "--json"])
    assert result.exit_code == ExitCode.REFUSED
    assert "'broken' (no_such_module) cannot be loaded" in json.loads(result.stderr)["message"]
