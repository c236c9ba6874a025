"""``lm-eval``: the language model evaluation harness, with edited models among its models."""

from __future__ import annotations

import sys

import typer

from memedit.commands.exits import CommandError, ExitCode

__all__ = ["lm_eval"]


def lm_eval(ctx: typer.Context) -> None:
    """Run lm-eval with --model memedit among its models; everything behind the command is lm-eval's own.

    Example: memedit lm-eval --model memedit --model_args pretrained=smollm2-135m-instruct,memory=facts.db
    --tasks arc_easy
    """
    try:
        from memedit.lm_eval_model import main
    except ImportError as error:
        raise CommandError(
            f"lm-eval is not installed: {error}", code=ExitCode.ENVIRONMENT, hint='pip install "memedit[eval]"'
        ) from error
    sys.argv = ["memedit lm-eval", *ctx.args]
    main()
