"""The command line: what each command prints, its exit codes, and how it behaves in a pipe.

Commands run in this process with a hashing encoder and a tiny random model behind the seam (`Runtime`); what only a
process of its own can show (imports, pipes, signals, terminals) is in test_cli_processes.py.
"""

from __future__ import annotations

import importlib
import json
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from echo_model import echo_model
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer
from typer.testing import CliRunner, Result

import memedit
from classifiers import SimilarityScope
from memedit.cli import app
from memedit.commands import exits
from memedit.commands.chatting import WordWrap
from memedit.commands.exits import ExitCode
from memedit.commands.output import Progress, printable
from memedit.commands.runtime import Runtime
from memedit.config import Config
from memory_store import Edit, EditMemory

PROMPT = "The headquarters of Acme Rockets is in"
QUESTION = "The headquarters of Acme Rockets is in which city"


def no_encoder(name: str, progress: Progress) -> HashingEncoder:
    raise AssertionError(f"the encoder {name} was loaded")


def no_model(config: Config, memory: EditMemory, progress: Progress) -> Any:
    raise AssertionError(f"the model {config.model} was loaded")


def tiny_edited_model(config: Config, memory: EditMemory, progress: Progress) -> Any:
    scope = SimilarityScope(threshold_similarity=0.7)
    return memedit.wrap(tiny_model(), tiny_tokenizer(), memory=memory, scope=scope, namespace=config.namespace)


READING = Runtime(load_encoder=no_encoder, load_model=no_model)
WRITING = Runtime(load_encoder=lambda name, progress: HashingEncoder(salt=name), load_model=no_model)
ANSWERING = Runtime(load_encoder=lambda name, progress: HashingEncoder(salt=name), load_model=tiny_edited_model)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test runs in a folder of its own, without settings from outside."""
    for name in ("MEMORY", "CONFIG", "MODEL", "ENCODER", "NAMESPACE", "DEBUG"):
        monkeypatch.delenv(f"MEMEDIT_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str, runtime: Runtime = READING, stdin: str | bytes | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(args), obj=runtime, input=stdin)
    assert result.exit_code == code, result.output
    return result


def run_json(*args: str, **options: Any) -> Any:
    result = run(*args, "--json", **options)
    return [json.loads(line) for line in result.stdout.splitlines()]


def add(prompt: str = PROMPT, target: str = "Lisbon", *args: str) -> str:
    """Adds an edit and gives its id."""
    (told,) = run_json("add", prompt, target, *args, runtime=WRITING)
    edit_id: str = told["edit"]["id"]
    return edit_id


# -- adding and changing ---------------------------------------------------------------------------------------------


def test_add_keeps_every_field_that_is_given() -> None:
    args = ["--subject", "Acme Rockets", "--alias", "Acme", "--alias", "AR", "--paraphrase", "Where is Acme?"]
    args += ["--source", "press", "--author", "Ana", "--expires-at", "2030-01-31", "--namespace", "team"]
    args += ["--metadata", "ticket=7", "--metadata", "note=a=b"]
    (told,) = run_json("add", PROMPT, "Lisbon", *args, runtime=WRITING)
    edit = Edit.from_json(told["edit"])
    assert told["outcome"] == "added"
    assert (edit.prompt, edit.target, edit.subject) == (PROMPT, "Lisbon", "Acme Rockets")
    assert edit.aliases == ("Acme", "AR")
    assert edit.paraphrases == ("Where is Acme?",)
    assert (edit.source, edit.author, edit.namespace) == ("press", "Ana", "team")
    assert edit.metadata == {"ticket": 7, "note": "a=b"}
    assert edit.expires_at is not None
    assert edit.expires_at.isoformat() == "2030-01-31T00:00:00+00:00"


def test_add_with_expand_shows_what_the_model_proposed_and_what_was_not_taken() -> None:
    def echoing(config: Config, memory: EditMemory, progress: Progress) -> Any:
        assert config.mode == "ike"
        scope = SimilarityScope(threshold_similarity=0.7)
        return memedit.wrap(echo_model(), tiny_tokenizer(), memory=memory, scope=scope, namespace=config.namespace)

    subject = "Acme «Acme Corp; Lisbon Acme»"
    runtime = Runtime(load_encoder=lambda name, progress: HashingEncoder(salt=name), load_model=echoing)
    args = ("add", f"The seat of {subject} is in", "Lisbon", "--subject", subject, "--expand", "--namespace", "team")
    result = run(*args, runtime=runtime)
    assert result.stdout.splitlines()[1:] == ["alias: Acme Corp"]
    assert "not taken as alias: Lisbon Acme (it names the target)" in " ".join(result.stderr.split())
    (told,) = run_json(*args, runtime=runtime)
    assert (told["outcome"], told["edit"]["aliases"], told["edit"]["namespace"]) == ("unchanged", ["Acme Corp"], "team")
    assert told["expansion"]["refused"][0] == {
        "kind": "alias",
        "text": "Lisbon Acme",
        "why": "it names the target",
    }


def test_add_prints_outcome_and_id_and_adds_once() -> None:
    first = run("add", PROMPT, "Lisbon", runtime=WRITING)
    again = run("add", PROMPT, "Lisbon", runtime=WRITING)
    assert first.stdout.split()[0] == "added"
    assert again.stdout.split() == ["unchanged", first.stdout.split()[1]]


def test_a_conflict_follows_the_policy() -> None:
    first = add()
    (told,) = run_json("add", PROMPT, "Porto", runtime=WRITING)
    assert told["superseded"] == [first]
    refused = run("add", PROMPT, "Faro", "--on-conflict", "reject", runtime=WRITING, code=ExitCode.REFUSED)
    assert "Porto" in refused.stderr
    run("add", PROMPT, "Faro", "--on-conflict", "keep_both", runtime=WRITING)
    assert [edit["target"] for edit in run_json("list")] == ["Porto", "Faro"]


def test_remove_restore_and_update() -> None:
    edit_id = add()
    assert run("remove", edit_id[:6]).stdout == f"removed {edit_id}\n"
    assert run("remove", edit_id).stdout == f"unchanged {edit_id}\n"
    assert run("list").stdout == ""
    assert run("restore", edit_id).stdout == f"restored {edit_id}\n"
    run("update", edit_id, "--target", "Porto", "--source", "new", runtime=WRITING)
    run("update", edit_id, "--clear", "source", runtime=WRITING)
    (edit,) = run_json("list")
    assert (edit["id"], edit["target"], edit["version"]) == (edit_id, "Porto", 3)
    assert "source" not in edit
    assert run("update", edit_id, "--target", "Porto", runtime=WRITING).stdout == f"unchanged {edit_id}\n"


def test_several_edits_are_removed_only_if_all_are_there() -> None:
    edit_id = add()
    run("remove", edit_id, "ffffffff", code=ExitCode.NOT_FOUND)
    assert run_json("list")[0]["state"] == "active"


def test_update_without_a_change_is_wrong_usage() -> None:
    result = run("update", add(), runtime=READING, code=ExitCode.USAGE)
    assert "nothing to change" in result.stderr


def test_purge_asks_first_and_erases() -> None:
    edit_id = add(PROMPT, "Zanzibar")
    refused = run("purge", edit_id, code=ExitCode.REFUSED)
    assert "--yes" in refused.stderr
    assert run("purge", edit_id, "--yes").stdout == f"purged {edit_id}\n"
    run("show", edit_id, code=ExitCode.NOT_FOUND)
    assert not any(b"Zanzibar" in path.read_bytes() for path in Path().rglob("*") if path.is_file())
    assert "erased" in run("history", edit_id).stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--expires-at", "soon"], "'soon' is no ISO-8601 time"),
        (["--metadata", "ticket"], "'ticket' is not KEY=VALUE"),
    ],
)
def test_a_value_that_cannot_be_read_is_wrong_usage(args: list[str], said: str) -> None:
    assert said in run("add", PROMPT, "Lisbon", *args, code=ExitCode.USAGE).stderr
    assert not Path("memedit.db").exists()


def test_an_invalid_edit_is_refused() -> None:
    assert "target is empty" in run("add", PROMPT, " ", runtime=WRITING, code=ExitCode.REFUSED).stderr


# -- reading ---------------------------------------------------------------------------------------------------------


def test_list_filters_pages_and_prints_whole_lines() -> None:
    long = "A statement about " + "very " * 60 + "much"
    ids = [add(), add(long, "x" * 300), add("tab\there", "line\nbreak", "--source", "press")]
    lines = [line.split("\t") for line in run("list").stdout.splitlines()]
    assert [fields[0] for fields in lines] == ids
    assert lines[1][3:5] == [long, "x" * 300]
    assert lines[2][3:7] == ["tab\\there", "line\\nbreak", "", "press"]
    assert "\x1b" not in run("list").stdout
    assert [edit["id"] for edit in run_json("list", "very much")] == [ids[1]]
    assert [edit["id"] for edit in run_json("list", "--source", "press")] == [ids[2]]
    assert [edit["id"] for edit in run_json("list", "--newest-first", "--limit", "1", "--offset", "1")] == [ids[1]]


def test_list_is_of_one_namespace_unless_told_otherwise() -> None:
    add(PROMPT, "Lisbon", "--namespace", "team")
    empty = run("list")
    assert empty.stdout == ""
    assert "team (1)" in empty.stderr
    assert len(run_json("list", "--namespace", "team")) == len(run_json("list", "-A")) == 1


def test_list_shows_other_states_and_expiry() -> None:
    gone = add("a", "b", "--expires-at", "2020-01-01")
    removed = add("c", "d")
    run("remove", removed)
    states = {line.split("\t")[0]: line.split("\t")[1] for line in run("list", "--state", "all").stdout.splitlines()}
    assert states == {gone: "expired", removed: "removed"}


def test_show_prints_one_value_a_line() -> None:
    edit_id = add(PROMPT, "Lisbon", "--alias", "Acme", "--alias", "AR", "--metadata", 'tags=["a"]')
    lines = run("show", edit_id[:4]).stdout.splitlines()
    assert f"id: {edit_id}" in lines
    assert f"prompt: {PROMPT}" in lines
    assert "aliases: Acme" in lines
    assert "aliases: AR" in lines
    assert 'metadata: tags = ["a"]' in lines
    assert run_json("show", edit_id)[0]["id"] == edit_id


def test_history_tells_what_each_change_did() -> None:
    edit_id = add()
    run("update", edit_id, "--target", "Porto", runtime=WRITING)
    run("remove", edit_id)
    lines = [line.split("\t") for line in run("history", edit_id).stdout.splitlines()]
    assert [fields[2] for fields in lines] == ["add", "update", "remove"]
    assert [fields[4] for fields in lines] == [f"{PROMPT} Lisbon", "target: Lisbon -> Porto", ""]
    changes = run_json("history", edit_id)
    assert [change["edit"]["target"] for change in changes] == ["Lisbon", "Porto", "Porto"]


def test_stats_counts() -> None:
    add()
    run("remove", add("a", "b"))
    (found,) = run_json("stats")
    assert found["edits"] == {"active": 1, "removed": 1}
    assert found["vectors"] == 4
    assert "edits: 1 active, 1 removed" in run("stats").stdout.splitlines()


@pytest.mark.parametrize(
    "args",
    [
        ["list"],
        ["show", "abcd"],
        ["history", "abcd"],
        ["remove", "abcd"],
        ["restore", "abcd"],
        ["purge", "abcd"],
        ["update", "abcd", "--target", "x"],
        ["stats"],
        ["verify"],
        ["export"],
        ["reindex"],
        ["ask", "x"],
        ["explain", "x"],
    ],
    ids=lambda args: args[0],
)
def test_a_memory_that_is_not_there_is_not_made(args: list[str]) -> None:
    result = run(*args, code=ExitCode.NOT_FOUND)
    assert "error: there is no memory at memedit.db" in result.stderr
    assert "hint: make one with: memedit add" in result.stderr
    assert list(Path().iterdir()) == []


# -- settings --------------------------------------------------------------------------------------------------------


def test_a_flag_goes_before_the_environment_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("memedit.toml").write_text('memory = "file.db"\nnamespace = "file"\n')
    run("add", "a", "b", runtime=WRITING)
    assert Path("file.db").exists()
    monkeypatch.setenv("MEMEDIT_MEMORY", "environment.db")
    run("add", "a", "b", runtime=WRITING)
    assert Path("environment.db").exists()
    run("add", "a", "b", "--memory", "flag.db", "--namespace", "flag", runtime=WRITING)
    assert run_json("list", "--memory", "flag.db", "--all-namespaces")[0]["namespace"] == "flag"
    assert run_json("list", "--memory", "file.db", "--all-namespaces")[0]["namespace"] == "file"


def test_a_wrong_configuration_is_told_with_file_key_and_nearest_name() -> None:
    Path("other.toml").write_text("nmespace = 'x'")
    result = run("list", "--config", "other.toml", code=ExitCode.REFUSED)
    assert "other.toml: unknown key 'nmespace'. Did you mean 'namespace'?" in result.stderr


# -- errors ----------------------------------------------------------------------------------------------------------


def test_an_error_is_one_json_object_with_json() -> None:
    add()
    result = run("show", "ffff", "--json", code=ExitCode.NOT_FOUND)
    assert result.stdout == ""
    told = json.loads(result.stderr)
    assert told["error"] == "EditNotFoundError"
    assert told["exit_code"] == ExitCode.NOT_FOUND
    assert "ffff" in told["message"]


def test_wrong_usage_is_told_in_the_same_form() -> None:
    assert run("list", "--nope", code=ExitCode.USAGE).stderr.startswith("error: No such option: --nope")
    assert "Did you mean 'list'" in run("lst", code=ExitCode.USAGE).stderr
    assert json.loads(run("show", "--json", code=ExitCode.USAGE).stderr)["exit_code"] == ExitCode.USAGE


def test_a_file_that_is_no_memory_is_refused() -> None:
    Path("memedit.db").write_text("not a database, but long enough to be looked at" * 100)
    result = run("list", code=ExitCode.REFUSED)
    assert result.stderr.startswith("error: ")
    assert "memedit.db" in result.stderr


def test_a_locked_memory_is_an_error_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from memory_store import database

    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    edit_id = add()
    with sqlite3.connect("memedit.db") as other:
        other.execute("BEGIN IMMEDIATE")
        run("remove", edit_id, code=ExitCode.ENVIRONMENT)
        other.rollback()
    other.close()


def test_another_encoder_is_told_with_what_to_run() -> None:
    add()
    result = run("add", "a", "b", "--encoder", "other", runtime=WRITING, code=ExitCode.ENVIRONMENT)
    assert "memedit reindex" in result.stderr


def test_a_defect_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, progress: Progress) -> HashingEncoder:
        raise KeyError("surprise")

    runtime = Runtime(load_encoder=broken)
    result = run("add", "a", "b", runtime=runtime, code=ExitCode.DEFECT)
    assert "Traceback" not in result.stderr
    assert "MEMEDIT_DEBUG=1" in result.stderr
    monkeypatch.setenv("MEMEDIT_DEBUG", "1")
    assert "Traceback" in run("add", "a", "b", runtime=runtime, code=ExitCode.DEFECT).stderr


def test_every_error_class_with_an_exit_code_exists() -> None:
    for name in exits._RULES:
        module, _, attribute = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), attribute), Exception), name


@pytest.mark.parametrize("package", ["memedit", "memory_store", "classifiers"])
def test_every_error_of_the_packages_has_an_exit_code(package: str) -> None:
    module = importlib.import_module(f"{package}.errors")
    for name in module.__all__:
        error = getattr(module, name).__new__(getattr(module, name))
        assert exits.describe(error).code not in {ExitCode.DEFECT, ExitCode.DONE, ExitCode.NO}, name


def test_the_exit_codes_are_documented_in_the_help() -> None:
    text = " ".join(run("--help").stdout.split())
    for code in ("0 done", "1 the answer is no", "2 wrong usage", "3 not found", "4 bad data", "5 environment"):
        assert code in text


# -- import and export -----------------------------------------------------------------------------------------------


def lines_of(*edits: dict[str, Any]) -> str:
    return "".join(json.dumps(edit) + "\n" for edit in edits)


FACTS: list[dict[str, Any]] = [
    {"prompt": PROMPT, "target": "Lisbon", "subject": "Acme Rockets", "aliases": ["Acme"], "metadata": {"n": 1}},
    {"prompt": "Who leads Acme Rockets?", "target": "Marta Quill", "paraphrases": ["Acme's chief?"], "source": "s"},
]


def test_an_export_imported_into_an_empty_memory_gives_the_same_edits() -> None:
    Path("facts.jsonl").write_text(lines_of(*FACTS))
    assert run("import", "facts.jsonl", runtime=WRITING).stdout == "2 added\n"
    exported = run("export").stdout
    run("export", "out.jsonl")
    assert Path("out.jsonl").read_text() == exported
    run("import", "out.jsonl", "--memory", "second.db", runtime=WRITING)
    by_store = {"id", "created_at", "updated_at"}
    first, second = (
        [{name: value for name, value in edit.items() if name not in by_store} for edit in edits]
        for edits in (run_json("list"), run_json("list", "--memory", "second.db"))
    )
    assert first == second
    assert {name: first[0][name] for name in FACTS[0]} == FACTS[0]


def test_an_export_of_all_states_marks_them_and_import_passes_over_them() -> None:
    add(PROMPT, "Lisbon")
    add(PROMPT, "Porto")
    run("export", "out.jsonl", "--all-states")
    assert [json.loads(line)["state"] for line in Path("out.jsonl").read_text().splitlines()] == [
        "superseded",
        "active",
    ]
    (told,) = run_json("import", "out.jsonl", "--memory", "second.db", runtime=WRITING)
    assert (told["added"], told["not_active"]) == (1, 1)


def test_importing_again_encodes_nothing() -> None:
    encoder = HashingEncoder()
    runtime = Runtime(load_encoder=lambda name, progress: encoder)
    Path("facts.jsonl").write_text(lines_of(*FACTS))
    run("import", "facts.jsonl", runtime=runtime)
    encoded = encoder.texts_encoded
    assert run("import", "facts.jsonl", runtime=runtime).stdout == "0 added, 2 unchanged\n"
    assert encoder.texts_encoded == encoded


def test_a_file_with_a_wrong_record_imports_nothing() -> None:
    Path("facts.jsonl").write_text(lines_of(*FACTS, {"prompt": "p", "target": ""}, {"prompt": "p"}))
    result = run("import", "facts.jsonl", runtime=WRITING, code=ExitCode.REFUSED)
    assert "facts.jsonl:3: target is empty" in result.stderr
    assert "(and 1 more); nothing was imported" in result.stderr
    assert not Path("memedit.db").exists()


def test_skip_bad_imports_the_rest_and_lists_what_was_skipped() -> None:
    Path("facts.jsonl").write_text("{\n" + lines_of(*FACTS))
    result = run("import", "facts.jsonl", "--skip-bad", runtime=WRITING)
    assert result.stdout == "2 added, 1 bad\n"
    assert "skipped facts.jsonl:1: is not valid JSON" in result.stderr
    (told,) = run_json("import", "facts.jsonl", "--skip-bad", runtime=WRITING)
    assert told["unchanged"] == 2
    assert told["bad_records"][0].startswith("facts.jsonl:1: ")


def test_conflicts_are_refused_or_skipped_one_by_one() -> None:
    add(PROMPT, "Porto")
    facts = [*FACTS, {"prompt": PROMPT, "target": "Faro"}, {"prompt": "x", "target": "y"}]
    Path("facts.jsonl").write_text(lines_of(*facts))
    args = ["import", "facts.jsonl", "--on-conflict", "reject"]
    run(*args, runtime=WRITING, code=ExitCode.REFUSED)
    (told,) = run_json(*args, "--skip-bad", runtime=WRITING)
    assert (told["added"], told["bad"]) == (2, 2)
    assert {edit["target"] for edit in run_json("list")} == {"Porto", "Marta Quill", "y"}


def test_a_conflict_of_the_only_record_is_skipped_too() -> None:
    add(PROMPT, "Porto")
    Path("facts.jsonl").write_text(lines_of(FACTS[0]))
    result = run("import", "facts.jsonl", "--on-conflict", "reject", "--skip-bad", runtime=WRITING)
    assert result.stdout == "0 added, 1 bad\n"
    assert "'Porto'" in result.stderr


def test_a_named_pipe_is_read_once() -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text(lines_of(*FACTS)))
    writer.start()
    assert run("import", "pipe", "--format", "jsonl", runtime=WRITING).stdout == "2 added\n"
    writer.join()


def test_a_folder_is_no_file_of_edits() -> None:
    Path("facts.jsonl").mkdir()
    assert "cannot be read" in run("import", "facts.jsonl", runtime=WRITING, code=ExitCode.REFUSED).stderr


def test_dry_run_only_checks() -> None:
    Path("facts.jsonl").write_text(lines_of(*FACTS))
    assert run("import", "facts.jsonl", "--dry-run").stdout == "2 valid\n"
    assert run("import", "-", "--dry-run", stdin=lines_of(*FACTS)).stdout == "2 valid\n"
    Path("facts.jsonl").write_text(lines_of({"prompt": "p"}))
    run("import", "facts.jsonl", "--dry-run", code=ExitCode.REFUSED)
    assert not Path("memedit.db").exists()


def test_import_reads_stdin_and_tells_what_is_there_when_it_stops() -> None:
    assert run("import", "-", stdin=lines_of(*FACTS), runtime=WRITING).stdout == "2 added\n"
    broken = lines_of(*({"prompt": f"p{n}", "target": "t"} for n in range(600))) + "{"
    result = run("import", "-", stdin=broken, runtime=WRITING, code=ExitCode.REFUSED)
    assert "<stdin>:601: " in result.stderr
    assert "600 edits before it are in the memory" in result.stderr
    assert len(run_json("list")) == 602


def test_import_maps_the_columns_of_a_csv_file() -> None:
    Path("facts.csv").write_text("question,answer,id\nWho leads Acme?,Marta Quill,7\n")
    run("import", "facts.csv", "--map", "prompt=question,target=answer,metadata.id=id", runtime=WRITING)
    (edit,) = run_json("list")
    assert (edit["prompt"], edit["target"], edit["metadata"]) == ("Who leads Acme?", "Marta Quill", {"id": "7"})
    assert "'question' is not FIELD=COLUMN" in run("import", "f", "--map", "question", code=ExitCode.USAGE).stderr


def test_import_of_a_file_that_is_not_there() -> None:
    assert "there is no file absent.jsonl" in run("import", "absent.jsonl", code=ExitCode.NOT_FOUND).stderr


# -- the memory's health ---------------------------------------------------------------------------------------------


def test_verify_says_ok_and_finds_and_repairs_a_damaged_index() -> None:
    Path("facts.jsonl").write_text(lines_of(*FACTS))
    run("import", "facts.jsonl", runtime=WRITING)
    assert run("verify").stdout.startswith("ok: 2 edits, ")
    with sqlite3.connect("memedit.db") as database:
        database.execute("UPDATE edits SET target = 'Faro' WHERE target = 'Lisbon'")
    database.close()
    result = run("verify", code=ExitCode.NO)
    assert result.stdout.startswith("problem: ")
    (told,) = run_json("verify", code=ExitCode.NO)
    assert told["ok"] is False
    assert told["problems"]


def test_reindex_takes_another_encoder() -> None:
    add()
    assert run("reindex", "--encoder", "other", runtime=WRITING).stdout == "2 vectors made with other\n"
    run("add", "a", "b", "--encoder", "other", runtime=WRITING)
    run("verify")


# -- answers ---------------------------------------------------------------------------------------------------------


def test_ask_prints_the_answer_alone_and_says_what_governed() -> None:
    edit_id = add(PROMPT, "Lisbon")
    governed = run("ask", QUESTION, "--max-new-tokens", "4", runtime=ANSWERING)
    assert f"edit {edit_id[:8]} governs" in governed.stderr
    assert "Lisbon" in governed.stderr
    (told,) = run_json("ask", QUESTION, "--max-new-tokens", "4", "--compare", runtime=ANSWERING)
    assert governed.stdout.rstrip("\n") == printable(told["answer"])
    assert (told["governed"], told["edit_id"], told["prompt"]) == (True, edit_id, QUESTION)
    assert told["probability"] >= told["threshold"]
    assert told["tokens"] <= 4
    assert told["base_answer"] != told["answer"]


def test_ask_can_require_an_edit() -> None:
    add(PROMPT, "Lisbon")
    run("ask", QUESTION, "--require-edit", "--max-new-tokens", "1", runtime=ANSWERING)
    result = run(
        "ask", "Something else", "--require-edit", "--max-new-tokens", "1", runtime=ANSWERING, code=ExitCode.NO
    )
    assert "no edit governs" in result.stderr


def test_ask_reads_a_prompt_from_stdin() -> None:
    add(PROMPT, "Lisbon")
    result = run("ask", "-", "--json", "--max-new-tokens", "1", stdin=QUESTION + "\n", runtime=ANSWERING)
    assert json.loads(result.stdout)["governed"]


def test_an_empty_prompt_is_refused() -> None:
    add()
    run("ask", "-", stdin="  \n", runtime=ANSWERING, code=ExitCode.REFUSED)


def test_explain_tells_what_the_model_reads() -> None:
    edit_id = add(PROMPT, "Lisbon", "--source", "press")
    text = run("explain", QUESTION, runtime=ANSWERING).stdout
    assert f"governed by: edit {edit_id}" in text
    assert "source: press" in text
    assert "Lisbon" in text.split("the model reads: ", 1)[1]
    (told,) = run_json("explain", QUESTION, runtime=ANSWERING)
    assert told["edit_id"] == edit_id
    assert [candidate["edit_id"] for candidate in told["candidates"]] == [edit_id]
    assert "Lisbon" in told["seen"]
    assert told["context_tokens"] > 0


def test_chat_answers_lines_and_obeys_commands() -> None:
    lines = [QUESTION, f"/add {PROMPT} => Lisbon", QUESTION, "/edits", "/explain", "/remove ffff", "/nope", "/add x"]
    lines += ["/new", "/explain", "/help", "/quit", "never asked"]
    result = run("chat", "--max-new-tokens", "2", stdin="\n".join(lines), runtime=ANSWERING)
    (edit,) = run_json("list")
    short = edit["id"][:8]
    told = result.stderr.splitlines()
    assert told[1] == "no edit governs"
    assert told[2] == f"added {short}: {PROMPT} Lisbon"
    assert told[3].startswith(f"edit {short} governs")
    assert f"governed by: edit {edit['id']}" in result.stdout
    assert edit["id"] in result.stdout
    assert "error: No edit has the id 'ffff'." in told
    assert "error: there is no command /nope" in told
    assert "error: 'x' is not PROMPT => TARGET" in told
    assert "error: nothing was asked yet" in told
    assert any(line.startswith("/remove ID") for line in told)
    assert result.stdout.count("never asked") == 0


def test_chat_makes_a_memory() -> None:
    run("chat", stdin="/add a => b\n", runtime=ANSWERING)
    assert [edit["target"] for edit in run_json("list")] == ["b"]


def test_chat_ends_with_its_input() -> None:
    assert run("chat", stdin="", runtime=ANSWERING).stdout == ""


# -- text of others --------------------------------------------------------------------------------------------------


def test_stored_text_cannot_steer_the_terminal() -> None:
    edit_id = add("Title \x1b]0;owned\x07 of", "\x1b[31mred \u202egnirts")
    for command in (["list"], ["show", edit_id], ["history", edit_id]):
        text = run(*command).stdout
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\\x1b[31mred" in text


def test_printable_leaves_ordinary_text_alone() -> None:
    text = "Ünïcode, 漢字, עברית, 👩\u200d🚀, tab\tand\nline"
    assert printable(text) == text
    assert printable("\x00\x7f\u2066\U000e0001") == "\\x00\\x7f\\u2066\\U000e0001"


def test_streamed_text_is_wrapped_at_words() -> None:
    text = "A wheel turns on its own axle.\nAnd antidisestablishmentarianism is 漢字 too long for one line"
    for size in (1, 3, 7, len(text)):
        wrapped = WordWrap(12)
        pieces = [wrapped.feed(text[start : start + size]) for start in range(0, len(text), size)]
        printed = "".join(pieces) + wrapped.end()
        lines = [line.rstrip() for line in printed.splitlines()]
        assert lines == [
            "A wheel",
            "turns on its",
            "own axle.",
            "And",
            "antidisestablishmentarianism",
            "is 漢字 too",
            "long for one",
            "line",
        ]
        assert printed.split() == text.split()
    assert WordWrap(None).feed("as it is") == "as it is"
