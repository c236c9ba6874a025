"""How a report looks: tables in the terminal, and one HTML page that stands alone.

In the order in which these files know each other: `numbers` (how a number is written), `arrangement` (which figures may
stand beside each other), `coverage` and `records` (what was left out, what to look at), `charts` (drawing), `plots`
(what is drawn), `tables` (the terminal) and `page` (the HTML file). Nothing here computes a figure.
"""

from __future__ import annotations

from memedit.evaluation.report.page import render_page
from memedit.evaluation.report.tables import coverage, headline, per_kind, routing

__all__ = ["coverage", "headline", "per_kind", "render_page", "routing"]
