"""Letters that matplotlib can draw: which of the installed fonts has them, and what is said where none has.

matplotlib brings DejaVu Sans, which has Latin, Greek, Cyrillic, Arabic and Hebrew letters and no Chinese, Japanese or
Korean ones. For those a font of the system is looked for. A character that no font has is written as its code point,
such as ``U+4EAC``, and never as an empty box; the figure says so. The HTML page is not concerned: a browser has fonts.

This file knows nothing of figures.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Lettering", "lettering_for"]

_OWN = "DejaVu Sans"
_PLACEHOLDERS = "Last Resort"
"""Has a box for every character, and comes with matplotlib."""

_WIDE = re.compile(
    r"noto|cjk|source han|wenquanyi|droid|unifont|gothic|mincho|hei|song|nanum|arial unicode", re.IGNORECASE
)
"""Names of fonts with many letters, which are looked into first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lettering:
    """How some texts are drawn.

    Attributes:
        families: The fonts, in the order in which they are asked for a character.
        missing: The characters that none of them has.
    """

    families: tuple[str, ...]
    missing: frozenset[str]

    def drawable(self, text: str) -> str:
        """A text in which what cannot be drawn stands as its code point, and white space is seen."""
        shown = text.replace("\n", "↵").replace("\t", "→")
        if shown and not shown.strip():
            shown = "␣" * len(shown)
        return "".join(f"U+{ord(one):04X} " if one in self.missing else one for one in shown.strip()).strip()

    def note(self) -> str:
        """What a figure says of characters that it does not show; empty where there are none."""
        if not self.missing:
            return ""
        many = "1 character stands" if len(self.missing) == 1 else f"{len(self.missing)} characters stand"
        return f"{many} as code points, as no installed font has them; the HTML page shows them."


def lettering_for(texts: Iterable[str]) -> Lettering:
    """Find fonts for some texts.

    Args:
        texts: Everything that is to be drawn.
    """
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    unseen = {"Cc", "Cf", "Zs", "Zl", "Zp"}
    wanted = {one for text in texts for one in text if unicodedata.category(one) not in unseen}
    families = [_OWN]
    own = FT2Font(font_manager.findfont(_OWN)).get_charmap()
    missing = {one for one in wanted if ord(one) not in own}
    if missing:
        _add_new_fonts()
        found = sorted(
            font_manager.fontManager.ttflist, key=lambda font: (not _WIDE.search(font.name), font.name, font.weight)
        )
        for font in found:
            if font.name in families or font.name.startswith(_PLACEHOLDERS) or not Path(font.fname).is_file():
                continue
            has = FT2Font(font.fname).get_charmap()
            covered = {one for one in missing if ord(one) in has}
            if covered:
                families.append(font.name)
                missing -= covered
            if not missing:
                break
    return Lettering(families=tuple(families), missing=frozenset(missing))


def _add_new_fonts() -> None:
    """Makes fonts known that were installed after matplotlib last looked."""
    from matplotlib import font_manager

    known = {font.fname for font in font_manager.fontManager.ttflist}
    for file in font_manager.findSystemFonts():
        if file not in known:
            with contextlib.suppress(OSError, RuntimeError):  # a damaged font, or one of a kind that cannot be drawn
                font_manager.fontManager.addfont(file)
