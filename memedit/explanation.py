"""What memedit tells a person about one prompt: what was decided, what the model saw, what it cost.

Records only; they know nothing of how they come about.
"""

from __future__ import annotations

from dataclasses import dataclass

from memedit.routing import Decision, told_apart, told_margin

__all__ = ["Answer", "Explanation"]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and what stands behind it.

    Attributes:
        prompt: What was asked.
        text: What the model said, special tokens and surrounding white space left out.
        decision: Which edit governed, if any.
        seconds: Routing and generation together.
        tokens: How many tokens were generated.
    """

    prompt: str
    text: str
    decision: Decision
    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a prompt is answered as it is.

    Attributes:
        prompt: The prompt as the caller's tokens spell it, special tokens included.
        decision: What the router decided, with every candidate.
        responder: Who answers: a responder's name, or ``"base model"``.
        seen: What the answering model reads: the prompt with its context.
        prompt_tokens: How many tokens the caller's prompt has.
        context_tokens: How many tokens of context are added to it.
    """

    prompt: str
    decision: Decision
    responder: str
    seen: str
    prompt_tokens: int
    context_tokens: int

    def __str__(self) -> str:
        """The explanation as a few lines of text."""
        decision = self.decision
        lines = [f"question     {decision.query.text}"]
        if decision.governed:
            edit = decision.edits[0]
            lines.append(f"governed by  {edit.id}  {edit.prompt} -> {edit.target}")
            origin = ", ".join(
                f"{label} {value}" for label, value in (("source", edit.source), ("author", edit.author)) if value
            )
            if origin:
                lines.append(f"             {origin}")
        else:
            lines.append("governed by  no edit: the base model answers, untouched")
        probability, threshold = told_apart(decision.probability, decision.threshold)
        lines.append(f"probability  {probability} (threshold {threshold}, margin {told_margin(decision)})")
        lines.append(f"why          {decision.reason}")
        for place, candidate in enumerate(decision.candidates[:3], start=1):
            lines.append(
                f"candidate {place}  {candidate.probability:.3f}  similarity {candidate.similarity:.3f}  "
                f"{candidate.edit.prompt} -> {candidate.edit.target}"
            )
        lines.append(f"answered by  {self.responder}")
        lines.append("the model sees")
        lines.extend(f"  | {line}" for line in self.seen.splitlines())
        timings = decision.timings
        lines.append(
            f"cost         {self.context_tokens} context tokens before {self.prompt_tokens} of the prompt; "
            f"routing {timings.total * 1000:.1f} ms (encode {timings.encode * 1000:.1f}, "
            f"search {timings.search * 1000:.1f}, classify {timings.classify * 1000:.1f}"
            f"{f', confirm {timings.confirm * 1000:.1f}' if timings.confirm else ''})"
        )
        return "\n".join(lines)
