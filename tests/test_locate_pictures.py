"""Pictures and pages of what was found: legible in any script, the same each time, and with every value in them."""

from __future__ import annotations

import html
import json
import re
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from browser import needs_chromium, opened, with_script
from hashing_encoder import HashingEncoder
from tiny import tiny_model, tiny_tokenizer

from memedit.editors.registry import create_editor
from memedit.editors.subject import Subject
from memedit.errors import ConfigError, DataFileError
from memedit.locate.averages import averages_of
from memedit.locate.figures import (
    average_curves,
    average_heatmap,
    footprint_heatmaps,
    lens_heatmap,
    neuron_bars,
    save_figure,
    trace_heatmaps,
)
from memedit.locate.fonts import Lettering, lettering_for
from memedit.locate.lens import footprints, logit_lens
from memedit.locate.neurons import find_neurons
from memedit.locate.page import averages_page, footprint_page, lens_page, neurons_page, trace_page
from memedit.locate.records import Fact, FactTrace
from memedit.locate.tracing import TraceConfig, Tracer
from memory_store import Edit

CONFIG = TraceConfig(window=2, samples=2)


def trace(prompt: str = "On AB lie", subject: str = "AB", **fields: Any) -> FactTrace:
    return Tracer(tiny_model(), tiny_tokenizer(None), CONFIG).trace(Fact(prompt=prompt, subject=subject, **fields))


def texts_of(figure: Any) -> list[str]:
    """Everything that is written in a figure."""
    return [text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text")) if text.get_text()]


def test_a_heat_map_shows_tokens_layers_and_values() -> None:
    found = trace()
    figure = trace_heatmaps(found)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [
        "hidden state",
        "MLP output, 2 layers",
        "attention output, 2 layers",
    ]
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == ["O", "n", "␣", "A*", "B*", "␣", "l", "i", "e"]
    scales = set()
    for axes, effect in zip(panels, found.effects, strict=True):
        (image,) = axes.images
        assert np.asarray(image.get_array()).tolist() == [list(row) for row in effect.indirect]
        scales.add((image.norm.vmin, image.norm.vmax, image.get_cmap().name))
    peak = max(abs(value) for effect in found.effects for row in effect.indirect for value in row)
    assert scales == {(-peak, peak, "PuOr")}
    assert [axes.get_xlabel() for axes in panels] == ["layer", *["layer (centre of the window)"] * 2]
    assert f"{found.clean:.3f} clean, {found.corrupted:.3f} corrupted" in " ".join(texts_of(figure))


def test_files_are_the_same_each_time_and_need_no_font(tmp_path: Path) -> None:
    found = trace()
    first = [file.read_bytes() for file in save_figure(trace_heatmaps(found), tmp_path / "one")]
    second = [file.read_bytes() for file in save_figure(trace_heatmaps(found), tmp_path / "two")]
    assert first == second
    assert first[0].startswith(b"\x89PNG")
    root = ET.fromstring(first[1])
    assert root.tag.endswith("svg")
    assert not [element for element in root.iter() if element.tag.endswith("}text")]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFileError, match="the figure cannot be written"):
        save_figure(trace_heatmaps(found), tmp_path / "file" / "three")


def test_settings_of_the_caller_stay() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    trace_heatmaps(trace())
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Столица Дании — город", "Дании"),
        ("Die Straße in Zürich", "Zürich"),
        ("η Αθήνα είναι", "Αθήνα"),
        ("$x_1$ is", "$x_1$"),
    ],
)
def test_letters_that_matplotlib_brings_are_drawn(prompt: str, subject: str, tmp_path: Path) -> None:
    lettering = lettering_for([prompt])
    assert lettering == Lettering(families=("DejaVu Sans",), missing=frozenset())
    assert lettering.note() == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(trace_heatmaps(trace(prompt, subject)), tmp_path / "x")


def test_a_letter_that_no_font_has_stands_as_its_code_point(tmp_path: Path) -> None:
    """In a private area, where no font of a system has one."""
    strange = "\U0010fffd"
    lettering = lettering_for([strange, "AB"])
    assert lettering.missing == {strange}
    assert lettering.drawable(f" A{strange}B") == "AU+10FFFD B"
    assert lettering.note().startswith("1 character stands as code points")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = trace_heatmaps(trace(f"{strange} AB is", "AB"))
        save_figure(figure, tmp_path / "x")
    told = " ".join(texts_of(figure))
    assert "U+10FFFD" in told
    assert "stands as code points" in told


def test_white_space_is_seen() -> None:
    lettering = lettering_for([])
    assert [lettering.drawable(text) for text in (" ", "\n", " a", "\ta", "")] == ["␣", "↵", "a", "→a", ""]


def test_a_long_prompt_is_drawn_from_its_subject_on() -> None:
    figure = trace_heatmaps(trace(f"{'so ' * 25}AB lie", "AB"))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["A*", "B*"]
    assert "75 tokens before the subject, where nothing has an effect, are not drawn" in " ".join(texts_of(figure))


def test_notes_and_an_unknown_answer_are_told() -> None:
    told = " ".join(texts_of(trace_heatmaps(trace("AB or AB lie", answer="x"))))
    assert "the subject stands in the prompt twice" in told
    assert "the model itself says" in told


def test_averages_are_drawn_with_their_intervals() -> None:
    traces = [trace(), trace("See ABC go on", "ABC"), trace("A go", "A")]
    averages = averages_of(traces, model="tiny", asked=7, known=3)
    curves = average_curves(averages)
    panels = [axes for axes in curves.axes if axes.get_title()]
    assert len(panels) == 3
    assert len(panels[0].lines) == 6 + 1  # and the line at 0
    for line, category in zip(panels[0].lines, ("first subject token", "middle subject tokens"), strict=False):
        assert np.asarray(line.get_ydata()).tolist() == [
            mean.value for mean in averages.effect("hidden", category).layers
        ]
    assert len({(line.get_color(), line.get_linestyle()) for line in panels[0].lines[:-1]}) == 6
    assert len(panels[0].collections) == 6
    whole = average_heatmap(averages)
    assert "3 facts that it knows, 2 noise samples each" in " ".join(texts_of(whole))
    assert [label.get_text() for label in whole.axes[0].get_yticklabels()][2] == "last subject token*"


def test_a_figure_that_would_be_absurdly_large_is_refused() -> None:
    with pytest.raises(ConfigError, match="too long for a figure; the HTML page shows it"):
        lens_heatmap(logit_lens(tiny_model(), tiny_tokenizer(None), "ab" * 1200))


# Pages.


def cells(page: str) -> list[str]:
    """What each cell of the maps tells, in order."""
    return [html.unescape(told) for told in re.findall(r"<rect[^>]*><title>(.*?)</title></rect>", page, re.DOTALL)]


def test_every_value_is_on_the_page() -> None:
    found = trace()
    told = cells(trace_page(found))
    assert len(told) == 3 * 9 * 3
    for number, effect in enumerate(found.effects):
        for token in range(9):
            for layer in range(3):
                cell = told[number * 27 + token * 3 + layer]
                assert f"layer {layer}\n" in cell
                assert f"{effect.indirect[token][layer]:+.4f} ± {effect.errors[token][layer]:.4f}" in cell


def test_pages_reach_for_nothing_and_take_no_markup_from_texts() -> None:
    hostile = "<script>alert(1)</script>"
    model, tokenizer = tiny_model(), tiny_tokenizer(None)
    edited = Subject(model, tokenizer, HashingEncoder(256), name="tiny")
    edit = Edit(prompt=hostile, target="Rome")
    pages = {
        "trace": trace_page(trace(f"{hostile} AB is", "AB")),
        "averages": averages_page(averages_of([trace()], model=hostile, asked=1, known=1)),
        "neurons": neurons_page(find_neurons(model, tokenizer, [hostile])),
        "lens": lens_page(logit_lens(model, tokenizer, hostile)),
        "footprint": footprint_page(footprints(edited, create_editor("ft-m", edited), [edit], [hostile, "the sea"])),
    }
    for name, page in pages.items():
        assert "<script>alert" not in page, name
        assert page.count("<script>") == 1, name
        assert "default-src 'none'" in html.unescape(page), name
        assert not re.findall(r"(?:src|href)=|https?://(?!www\.w3\.org)", page), name
        assert " style=" not in page, name  # which the policy would not admit
    assert "Nothing moved" not in pages["footprint"]


def test_the_page_of_what_did_not_move_says_so() -> None:
    edited = Subject(tiny_model(), tiny_tokenizer(None), HashingEncoder(256), name="tiny")
    edit = Edit(prompt="The capital of France is", target="Rome", subject="France")
    page = footprint_page(footprints(edited, create_editor("base", edited), [edit], ["the sea"]))
    assert "Nothing moved, to the last bit." in page


def test_other_scripts_stand_on_the_page_as_they_are() -> None:
    page = trace_page(trace("東京は日本の", "東京"))
    assert '<span class="subject">東京</span>は日本の' in page
    assert "東 1/3*" in page
    assert "عاصمة" in trace_page(trace("عاصمة فرنسا هي", "فرنسا"))


def test_every_layer_of_the_neurons_page_tells_its_attribution() -> None:
    report = find_neurons(tiny_model(), tiny_tokenizer(None), ["The sea is"])
    page = neurons_page(report)
    told = cells(page)
    assert [text.split("\n")[:2] for text in told] == [
        [f"layer {layer}", f"attribution {value:+.4f}"] for layer, value in enumerate(report.by_layer)
    ]
    for one in report.neurons[:3]:
        assert f"neuron {one.place}: {one.attribution:+.5f}" in told[one.layer]
    (svg,) = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    pale = [rect for rect in ET.fromstring(svg).iter("rect") if rect.get("fill") == "#b2abd2"]
    heights = [float(str(rect.get("height"))) for rect in pale]
    assert np.allclose(
        np.array(heights) / sum(heights), np.abs(report.by_layer) / sum(np.abs(report.by_layer)), atol=1e-4
    )


def test_figures_of_neurons_lens_and_footprint() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer(None)
    report = find_neurons(model, tokenizer, ["The sea is", "It is, the sea,"])
    figure = neuron_bars(report)
    left, right = figure.axes
    assert [bar.get_height() for bar in left.containers[0]] == pytest.approx(list(report.by_layer))
    assert [bar.get_width() for bar in right.containers[1]] == [change.suppressed for change in report.changes]
    lens = logit_lens(model, tokenizer, "The sea is")
    images = [axes.images[0] for axes in lens_heatmap(lens).axes if axes.images and axes.get_title()]
    assert np.asarray(images[1].get_array()).tolist() == [list(row) for row in lens.chance]
    edited = Subject(model, tokenizer, HashingEncoder(256), name="tiny")
    edit = Edit(prompt="The capital of France is", target="Rome", subject="France")
    found = footprints(edited, create_editor("ft-m", edited), [edit], [edit.prompt, "the sea"])
    drawn = footprint_heatmaps(found)
    assert sum(bool(axes.images) for axes in drawn.axes) == 4
    assert json.loads(json.dumps(found[0].to_json()))["moved"]


# In a browser.

HOVER = """
  const found = [...document.querySelectorAll("rect[data-told]")].map((rect) => {
    rect.scrollIntoView({ block: "center", inline: "center" });
    const box = rect.getBoundingClientRect();
    const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true };
    document.elementFromPoint(at.clientX, at.clientY).dispatchEvent(new PointerEvent("pointermove", at));
    const told = document.getElementById("told");
    const shown = told.getBoundingClientRect();
    const inside = shown.left >= 0 && shown.top >= 0 && shown.right <= innerWidth && shown.bottom <= innerHeight;
    return [told.hidden ? null : told.textContent, inside];
  });
  document.body.dispatchEvent(new PointerEvent("pointermove", { bubbles: true }));
  document.title = JSON.stringify({ found, gone: document.getElementById("told").hidden });
"""
"""Puts the pointer on the middle of every cell, where it is on the screen, and notes what is shown there."""


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "subject"), [("On AB lie", "AB"), ("東京は日本の", "東京"), (f"{'so ' * 25}AB lie", "AB")]
)
def test_the_pointer_shows_every_value_in_a_browser(prompt: str, subject: str, tmp_path: Path) -> None:
    pages = {
        "trace": trace_page(trace(prompt, subject)),
        "neurons": neurons_page(find_neurons(tiny_model(), tiny_tokenizer(None), [prompt])),
    }
    for name, page in pages.items():
        assert opened(page, tmp_path)[1] == [], "under the page's own policy nothing fails"
        document, said = opened(with_script(page, HOVER), tmp_path)
        assert said == []
        title = re.search(r"<title>(\{.*?\})</title>", document)
        assert title, name
        shown = json.loads(html.unescape(title[1]))
        assert [text for text, _ in shown["found"]] == cells(page)
        assert all(inside for _, inside in shown["found"])
        assert shown["gone"]
