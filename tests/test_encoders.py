"""`SentenceEncoder` against mean pooling written out, and the fingerprint against every change of the
vectors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from classifiers import EncoderLoadError, SentenceEncoder, TextEncoder
from classifiers.quiet import quiet_transformers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghij")]
TEXTS = ["a b c", "fed", "a", "k l m n o p q r s t u v", "zz top", ""]


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT in sentence-transformers' layout."""
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    with quiet_transformers():
        BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    ).save_pretrained(folder)
    kinds = ("Transformer", "Pooling", "Normalize")
    write_json(
        folder / "modules.json",
        [
            {
                "idx": i,
                "name": str(i),
                "path": "" if i == 0 else f"{i}_{kind}",
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, kind in enumerate(kinds)
        ],
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 8, "do_lower_case": False})
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
    )
    return folder


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def encoder(tiny_folder: Path) -> SentenceEncoder:
    return SentenceEncoder(tiny_folder, batch_size=2, device="cpu")


def by_hand(folder: Path, text: str, *, longest: int = 8) -> NDArray[np.float32]:
    """The vector of one text: BERT's last layer, the mean over the tokens, length one."""
    with quiet_transformers():
        bert = BertModel.from_pretrained(folder).eval()
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    if len(ids) > longest:
        ids = [*ids[: longest - 1], ids[-1]]
    with torch.no_grad():
        mean = bert(torch.tensor([ids])).last_hidden_state[0].mean(dim=0).numpy()
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)


def test_is_a_text_encoder(encoder: SentenceEncoder):
    assert isinstance(encoder, TextEncoder)


def test_vectors_are_those_of_mean_pooling_in_the_order_given(encoder: SentenceEncoder, tiny_folder: Path):
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    expected = np.stack([by_hand(tiny_folder, text) for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_rows_are_unit_vectors(encoder: SentenceEncoder):
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(TEXTS), axis=1), 1.0, atol=1e-6)


def test_no_texts_give_an_empty_matrix_without_loading_the_model(tiny_folder: Path):
    encoder = SentenceEncoder(tiny_folder)
    assert encoder.encode([]).shape == (0, 16)
    assert encoder._model is None


def test_any_sequence_of_texts_will_do(encoder: SentenceEncoder):
    np.testing.assert_array_equal(encoder.encode(("a", "b")), encoder.encode(["a", "b"]))


def test_one_string_is_refused(encoder: SentenceEncoder):
    with pytest.raises(TypeError, match="put it in a list"):
        encoder.encode("text")


@pytest.mark.parametrize("wrong", [None, 3, b"text", ["nested"]])
def test_what_is_no_text_is_refused_with_its_position(encoder: SentenceEncoder, wrong: Any):
    with pytest.raises(TypeError, match="text 1 is not a string"):
        encoder.encode(["right", wrong])


def test_threads_may_share_one_encoder(tiny_folder: Path):
    encoder = SentenceEncoder(tiny_folder, device="cpu")
    alone = [encoder.encode([text]) for text in TEXTS]
    wrong: list[str] = []

    def work(position: int) -> None:
        for _ in range(20):
            try:
                if not np.allclose(encoder.encode([TEXTS[position]]), alone[position], atol=1e-6):
                    wrong.append(TEXTS[position])
            except RuntimeError as error:  # "Already borrowed", without the lock
                wrong.append(str(error))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(TEXTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_it_is_quiet(encoder: SentenceEncoder, tiny_folder: Path, capfd: pytest.CaptureFixture[str]):
    SentenceEncoder(tiny_folder, device="cpu").encode(TEXTS)
    assert capfd.readouterr() == ("", "")


def test_making_one_imports_no_model_library(tiny_folder: Path):
    code = (
        "import sys; from classifiers import SentenceEncoder; e = SentenceEncoder(sys.argv[1]);"
        "print(e.fingerprint, e.dimension, *(sys.modules.keys() & {'torch', 'transformers', 'sentence_transformers'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    # also: the fingerprint is the same in another process
    assert done.stdout.split() == [SentenceEncoder(tiny_folder).fingerprint, "16"]


def test_fingerprint_is_independent_of_the_place_and_of_how_files_are_written(
    tiny_folder: Path, folder: Path, tmp_path: Path
):
    expected = SentenceEncoder(tiny_folder).fingerprint
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            content = dict(reversed(content.items())) | {"transformers_version": "0.0", "_name_or_path": "x"}
        path.write_text(json.dumps(content, indent=7))
    (folder / "README.md").write_text("other words")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    half = len(tensors) // 2
    save_file(dict(list(tensors.items())[half:]), folder / "model-00001-of-00002.safetensors")
    save_file(dict(list(tensors.items())[:half]), folder / "model-00002-of-00002.safetensors")
    assert SentenceEncoder(folder).fingerprint == expected


def change_one_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][5, 3] += 1e-4
    save_file(tensors, folder / "model.safetensors")


def change_a_tensor_name(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["renamed"] = tensors.pop("embeddings.word_embeddings.weight")
    save_file(tensors, folder / "model.safetensors")


def change_the_type(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "model.safetensors")


def change_the_longest_text(folder: Path) -> None:
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": False})


def change_the_pooling(folder: Path) -> None:
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True},
    )


def change_the_tokenizer(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    write_json(folder / "tokenizer.json", content)


def change_the_modules(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    write_json(folder / "modules.json", modules[:2])


@pytest.mark.parametrize(
    "change",
    [
        change_one_weight,
        change_a_tensor_name,
        change_the_type,
        change_the_longest_text,
        change_the_pooling,
        change_the_tokenizer,
        change_the_modules,
    ],
)
def test_fingerprint_changes_with_whatever_changes_the_vectors(tiny_folder: Path, folder: Path, change: Any):
    before = SentenceEncoder(folder).fingerprint
    assert before == SentenceEncoder(tiny_folder).fingerprint
    change(folder)
    assert SentenceEncoder(folder).fingerprint != before


def test_a_loaded_model_serves_as_well(tiny_folder: Path, encoder: SentenceEncoder):
    from sentence_transformers import SentenceTransformer

    with quiet_transformers():
        model = SentenceTransformer(str(tiny_folder), device="cpu", local_files_only=True)
    wrapped = SentenceEncoder(model)
    assert wrapped.dimension == 16
    np.testing.assert_allclose(wrapped.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
    assert wrapped.fingerprint == SentenceEncoder(model).fingerprint
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1.0
    assert SentenceEncoder(model).fingerprint != wrapped.fingerprint


def test_the_dimension_of_other_modules_is_asked_of_the_model(folder: Path):
    # two pooling modes side by side: twice the width, which no configuration file states
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
    )
    encoder = SentenceEncoder(folder, device="cpu")
    assert encoder.dimension == 32
    assert encoder.encode([]).shape == (0, 32)


def test_a_folder_without_modules_is_refused(folder: Path):
    (folder / "modules.json").unlink()
    with pytest.raises(EncoderLoadError, match=r"there is no modules\.json"):
        SentenceEncoder(folder)


def test_weights_that_are_only_pickled_are_refused(folder: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EncoderLoadError, match="pickled"):
        SentenceEncoder(folder)


def test_no_weights_are_refused(folder: Path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(EncoderLoadError, match="no weights"):
        SentenceEncoder(folder)


def test_code_from_a_folder_is_refused(folder: Path):
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "custom_module.Evil"
    write_json(folder / "modules.json", modules)
    with pytest.raises(EncoderLoadError, match=r"'custom_module\.Evil'"):
        SentenceEncoder(folder)


def test_a_module_outside_the_folder_is_refused(folder: Path):
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../elsewhere"
    write_json(folder / "modules.json", modules)
    with pytest.raises(EncoderLoadError, match="outside its folder"):
        SentenceEncoder(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_weights_that_are_cut_short_are_refused(folder: Path, kept: int):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(EncoderLoadError, match="safetensors"):
        SentenceEncoder(folder)


def test_a_batch_of_none_is_refused(tiny_folder: Path):
    with pytest.raises(ValueError, match="at least 1"):
        SentenceEncoder(tiny_folder, batch_size=0)


@pytest.mark.real
def test_minilm_knows_what_is_alike(minilm_folder: Path):
    encoder = SentenceEncoder(minilm_folder, device="cpu")
    assert encoder.dimension == 384
    query, alike, other = encoder.encode(
        [
            "Where is Acme Rockets based?",
            "The headquarters of Acme Rockets is in",
            "How do I bake sourdough bread?",
        ]
    )
    assert query @ alike > 0.7 > 0.3 > query @ other
