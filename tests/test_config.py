"""The configuration file: defaults, precedence within it, and errors that name file, key and nearest name."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from memedit.config import Config, GenerationSettings, read_config
from memedit.errors import ConfigError
from memory_store import ConflictPolicy


def written(folder: Path, text: str) -> Path:
    file = folder / "memedit.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_config() == Config()


def test_the_file_of_the_current_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, 'model = "other"\n[generation]\nmax_new_tokens = 7\n')
    monkeypatch.chdir(tmp_path)
    config = read_config()
    assert config.model == "other"
    assert config.generation == GenerationSettings(max_new_tokens=7)
    assert config.encoder == Config().encoder


def test_the_documented_file_is_the_defaults(tmp_path: Path) -> None:
    """The example in the module's docstring names every key with its default."""
    import memedit.config

    assert memedit.config.__doc__ is not None
    example = memedit.config.__doc__.split("::\n", 1)[1].split("The file is named", 1)[0]
    lines = [line.strip() for line in example.splitlines()]
    config = read_config(written(tmp_path, "\n".join(lines)))
    assert config == Config(memory=tmp_path / "memedit.db")


def test_a_relative_memory_is_relative_to_the_file(tmp_path: Path) -> None:
    assert read_config(written(tmp_path, 'memory = "facts.db"')).memory == tmp_path / "facts.db"


def test_an_absolute_memory_stays(tmp_path: Path) -> None:
    assert read_config(written(tmp_path, 'memory = "/data/facts.db"')).memory == Path("/data/facts.db")


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "bom.toml"
    file.write_bytes(b'\xef\xbb\xbfmodel = "m"\n')
    assert read_config(file).model == "m"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('moddel = "x"', ["unknown key 'moddel'", "Did you mean 'model'?"]),
        ("zzz = 1", ["unknown key 'zzz'", "Known keys: memory, model"]),
        ("[generation]\nmax_tokens = 3", ["'generation.max_tokens'", "Did you mean 'max_new_tokens'?"]),
        ("model = 3", ["'model' must be a string, not 3"]),
        ('model = ""', ["'model' must be a string, not ''"]),
        ("memory = true", ["'memory' must be a path"]),
        ("generation = 3", ["'generation' must be a table ([generation]), not 3"]),
        ("[generation]\nmax_new_tokens = true", ["'generation.max_new_tokens' must be an integer, not True"]),
        ("[generation]\nmax_new_tokens = 0", ["max_new_tokens must be at least 1, not 0"]),
        ('on_conflict = "merge"', ["'on_conflict' must be one of", '"keep_both"', "'merge'"]),
        ("model = ]", ["is not valid TOML", "line 1"]),
    ],
)
def test_a_wrong_file_is_told_with_its_name_and_key(tmp_path: Path, text: str, said: list[str]) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_config(file)
    message = str(caught.value)
    assert str(file) in message
    for part in said:
        assert part in message


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read: No such file"):
        read_config(tmp_path / "absent.toml")


def test_bytes_that_are_not_text_are_told_with_their_place(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes('model = "caf\xe9"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 12\)"):
        read_config(file)


def test_override_leaves_what_is_none_and_checks_the_rest() -> None:
    config = Config(model="file").override(model=None, namespace="here", memory=Path("m.db"))
    assert (config.model, config.namespace, config.memory) == ("file", "here", Path("m.db"))
    with pytest.raises(ConfigError, match="Did you mean 'namespace'"):
        config.override(namespce="x")
    with pytest.raises(ConfigError, match="'on_conflict' must be one of"):
        config.override(on_conflict="merge")


def test_the_conflict_policies_are_those_of_the_memory() -> None:
    """`memedit.config` spells them out, because importing the store would slow the command line's start."""
    assert get_args(get_type_hints(Config)["on_conflict"]) == get_args(ConflictPolicy)
