"""Warns of a precision that the machine only imitates."""

from __future__ import annotations

from memedit.commands.output import Output

__all__ = ["warn_of_imitation"]


def warn_of_imitation(output: Output, asked: str, device: str | None) -> None:
    """Says that bfloat16 does not pay here, where it is asked for.

    Args:
        output: Where it is said.
        asked: The precision that is asked for.
        device: Where the model is put; None for the CPU.
    """
    if asked != "bfloat16":
        return
    from memedit.processors import IMITATION, multiplies_in_bfloat16

    if not multiplies_in_bfloat16(device):
        output.note(f"warning: {IMITATION}", style="yellow")
