"""What a command works with: its configuration, its output, a memory, an encoder, a model.

`Runtime` is the seam towards everything heavy. It is the typer context's ``obj``; another one can be handed
to the application, with an encoder or a model of one's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from memedit.commands.exits import CommandError, ExitCode
from memedit.commands.output import Output, Progress
from memedit.config import Config, read_config

if TYPE_CHECKING:
    from memedit.model import EditedModel
    from memory_store import EditMemory, VectorEncoder

__all__ = ["Runtime", "Session"]


def _load_encoder(name: str, progress: Progress) -> VectorEncoder:
    from classifiers import SentenceEncoder
    from memedit.pulling import resolve

    return SentenceEncoder(resolve(name, progress=progress))


def _load_model(config: Config, memory: EditMemory, progress: Progress) -> EditedModel:
    from classifiers import quiet_transformers
    from memedit.loading import load
    from memedit.pulling import resolve

    folder = resolve(config.model, progress=progress)
    progress("loading", 0, None)
    with quiet_transformers():
        model = load(folder, memory=memory, mode=config.mode, namespace=config.namespace)
        model.router.encoder.encode(["ready"])  # loads it now, so that no question's timings include it
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """How encoders and models are made.

    Attributes:
        load_encoder: Makes the text encoder of a name, reporting what it downloads.
        load_model: Makes the edited model of a configuration over an open memory, reporting in the same way.
    """

    load_encoder: Callable[[str, Progress], VectorEncoder] = _load_encoder
    load_model: Callable[[Config, EditMemory, Progress], EditedModel] = _load_model


@dataclass(frozen=True, slots=True)
class Session:
    """One run of one command.

    Attributes:
        config: The settings: flag, environment, file, default, in this order.
        output: Where to print.
        runtime: How encoders and models are made.
        now: When the command started.
    """

    config: Config
    output: Output
    runtime: Runtime
    now: datetime

    @classmethod
    def start(cls, ctx: typer.Context, config_file: Path | None, *, as_json: bool = False, **settings: Any) -> Session:
        """Reads the configuration and lays the command's own settings over it.

        Args:
            ctx: The command's context; its ``obj`` is a `Runtime`, or None for the ordinary one.
            config_file: The configuration file that was named, if any.
            as_json: Whether a program reads the output.
            **settings: Settings by their configuration key; None leaves the configured value.
        """
        runtime = ctx.obj if isinstance(ctx.obj, Runtime) else Runtime()
        config = read_config(config_file).override(**settings)
        return cls(config, Output(as_json=as_json), runtime, datetime.now(UTC))

    @contextlib.contextmanager
    def memory(self, *, encoder: bool = False, create: bool = False, reencode: bool = False) -> Iterator[EditMemory]:
        """The open memory.

        Args:
            encoder: Whether vectors are needed; loading the encoder takes seconds.
            create: Whether a memory that is not there is made.
            reencode: Whether every edit is encoded again, as is needed after a change of encoder.

        Raises:
            CommandError: If there is no memory and none is to be made.
        """
        path = self.config.memory
        if not create and not path.is_file():
            raise CommandError(
                f"there is no memory at {path}",
                code=ExitCode.NOT_FOUND,
                hint="make one with: memedit add PROMPT TARGET, or name another with --memory PATH",
            )
        from memory_store import EditMemory

        with self.output.progress() as progress:
            loaded = self.runtime.load_encoder(self.config.encoder, progress) if encoder else None
            opened = EditMemory(
                path, encoder=loaded, conflict_policy=self.config.on_conflict, progress=progress, reencode=reencode
            )
        with opened:
            yield opened

    @contextlib.contextmanager
    def model(self, *, create: bool = False) -> Iterator[EditedModel]:
        """The edited model over the open memory.

        Args:
            create: Whether a memory that is not there is made.
        """
        with self.memory(encoder=True, create=create) as memory:
            with self.output.progress() as progress:
                loaded = self.runtime.load_model(self.config, memory, progress)
            yield loaded
