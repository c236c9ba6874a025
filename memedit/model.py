"""The edited model: a drop-in for a ``transformers`` causal language model whose facts can be changed while it runs.

Prompts that no edit governs go to the base model verbatim. Prompts that one does are answered with the edit in context,
or by the counterfactual model. The weights are never touched.
"""

from __future__ import annotations

import contextvars
import functools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from memedit.calls import REFUSED_IN_FORWARD, REFUSED_IN_GENERATE, bind, refuse
from memedit.counterfactual import CounterfactualModel
from memedit.errors import InvalidPromptError, UnsupportedCallError
from memedit.explanation import Answer, Explanation
from memedit.injection import Context, ContextInjection, governed_logits, splice
from memedit.modes import Mode, ModeChoice, choose_mode
from memedit.passes import max_positions
from memedit.queries import Query
from memedit.recital import Writing
from memedit.responders import Responder, confirmed
from memedit.routing import Decision, Router, RoutingTimings
from memedit.rows import PromptReader, RowPrompt
from memory_store import AddManyReport, Edit, EditMemory
from memory_store.records import checked, drafted

if TYPE_CHECKING:
    import torch

    from memedit.expansion import Expansion
    from memedit.streaming import TextStream


__all__ = ["EditedModel"]

Messages = Sequence[Mapping[str, str]]

DEFAULT_NAMESPACE = "default"

DEFAULT_ANSWER_TOKENS = 256
"""How many tokens `chat` and `ask` generate at most where the caller sets no limit."""

_DISABLED: contextvars.ContextVar[frozenset[int]] = contextvars.ContextVar("memedit_disabled", default=frozenset())

# Attributes of the edited model itself; every other name is the base model's.
_OWN = frozenset({"unedited", "tokenizer", "memory", "router", "responder", "namespace", "_reader", "_choice"})

# Options of `generate` that say how to sample; a model of another vocabulary that answers beforehand is given them too.
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")

_RETURNING_SELF = frozenset(
    {"to", "eval", "train", "float", "half", "bfloat16", "double", "cpu", "cuda", "requires_grad_", "type"}
)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one call does with its rows."""

    mask: torch.Tensor
    prompts: list[RowPrompt]
    decisions: list[Decision]
    contexts: dict[int, Context]


class EditedModel:
    """A causal language model with an edit memory in front of it.

    It takes and returns what the base model takes and returns, and every attribute it does not have itself is the base
    model's (``config``, ``device``, ``generation_config``, ``to``, ``eval``, ...). ``isinstance`` holds for the base
    model's class, so that ``transformers.pipeline`` and others accept it; ``type(model)`` tells the difference.

    Build one with :func:`memedit.load` or :func:`memedit.wrap`.

    Attributes:
        unedited: The base model.
        tokenizer: Its tokenizer.
        memory: Where the edits are.
        router: Decides which edit governs a prompt.
        responder: Answers governed prompts.
        namespace: Where :meth:`add` puts edits.

    Args:
        model: The base model, a decoder-only ``transformers`` model.
        tokenizer: Its tokenizer.
        router: Decides; brings the memory along.
        responder: Answers; by default what ``mode`` says.
        mode: ``"ike"``: the base model, with the edit in context. ``"serac"``: the counterfactual model. ``"auto"``:
            whichever does better in a self-test of the two.
        counterfactual: The counterfactual model, or the folder of its adapter; None for the one that comes with
            memedit.

    Raises:
        ModelNotFoundError: The mode is ``"serac"``, and there is no counterfactual model.
    """

    unedited: Any
    tokenizer: Any
    memory: EditMemory
    router: Router
    responder: Responder
    namespace: str
    _reader: PromptReader
    _choice: ModeChoice

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        router: Router,
        *,
        responder: Responder | None = None,
        mode: Mode = "ike",
        counterfactual: CounterfactualModel | str | Path | None = None,
    ) -> None:
        self.unedited = model
        self.tokenizer = tokenizer
        self.memory = router.memory
        self.router = router
        self.namespace = router.namespaces[0]
        self._reader = PromptReader(tokenizer)
        self._choice = (
            ModeChoice(responder.name, "a responder was given", responder)
            if responder is not None
            else choose_mode(mode, model, tokenizer, counterfactual=counterfactual)
        )
        self.responder = self._choice.responder

    @property
    def mode(self) -> str:
        """Who answers governed prompts: ``"ike"``, ``"serac"``, or the name of a responder that was given."""
        return self._choice.mode if self.responder is self._choice.responder else self.responder.name

    @property
    def mode_reason(self) -> str:
        """Why, in a sentence; of the mode ``"auto"``, what the self-test found."""
        return self._choice.reason if self.responder is self._choice.responder else "a responder was given"

    # -- a transparent stand-in for the base model ---------------------------------------------------------------

    @property  # type: ignore[misc]  # a property where a class attribute was: it stands in for the base model
    def __class__(self) -> type:
        return type(self.unedited)

    def __getattr__(self, name: str) -> Any:
        if name in _OWN:  # not set yet: copying or unpickling looks before __init__ ran
            raise AttributeError(name)
        attribute = getattr(self.unedited, name)
        return self._returning_self(attribute) if name in _RETURNING_SELF else attribute

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self.unedited, name, value)

    def __dir__(self) -> list[str]:
        return sorted({*dir(EditedModel), *_OWN, *dir(self.unedited)})

    def __repr__(self) -> str:
        return f"EditedModel({type(self.unedited).__name__}, memory={str(self.memory.path)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __deepcopy__(self, memo: object) -> EditedModel:
        raise TypeError("an edited model holds an open memory and is not copied; copy model.unedited and wrap that")

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        raise TypeError("an edited model holds an open memory and is not pickled; open the memory in the other process")

    def _returning_self(self, method: Any) -> Any:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            return self if result is self.unedited else result

        return call

    # -- edits -----------------------------------------------------------------------------------------------------

    def add(self, prompt: str | Edit, target: str | None = None, *, expand: bool = False, **fields: Any) -> Edit:
        """Add a fact; it governs from the next prompt on, and survives a restart.

        Args:
            prompt: The words that the target continues, or the question that it answers; or a whole edit.
            target: What the model is to say; None where a whole edit is given.
            expand: Have the base model propose other names of the subject and other wordings of the prompt, and store
                those that pass the checks of :meth:`expand` with the edit. The edit that is returned shows them.
            **fields: ``subject``, ``aliases``, ``paraphrases``, ``source``, ``author``, ``expires_at``, ``metadata``,
                ``namespace``, and ``on_conflict``, as :meth:`memory_store.EditMemory.add` takes them.

        Returns:
            The edit as stored, with its id.
        """
        if expand:
            policy = {"on_conflict": fields.pop("on_conflict", None)}
            draft = drafted(prompt, target, fields)
            return self.add(self.expand(draft).expanded, **policy)
        if isinstance(prompt, Edit):
            return self.memory.add(self._placed(prompt), target, **fields).edit
        return self.memory.add(prompt, target, **{"namespace": self.namespace, **fields}).edit

    def expand(self, edit: Edit) -> Expansion:
        """What the base model proposes as other names of an edit's subject and other wordings of its prompt.

        Nothing is stored: ``expansion.expanded`` is the edit with what was taken. Small models propose much nonsense;
        what fails a check is in ``expansion.refused``, with the reason.

        Args:
            edit: A draft, or an edit of the memory.
        """
        from memedit.expansion import Proposer, expand
        from memedit.prompts import Neutraliser

        placed = checked(self._placed(edit))
        (expansion,) = expand(
            [placed],
            Proposer(self.unedited, self.tokenizer),
            memory=self.memory,
            encoder=self.router.encoder,
            scope=self.router.scope,
            namespaces=(placed.namespace,),
            neutral=Neutraliser.for_tokenizer(self.tokenizer),
        )
        return expansion

    def add_many(self, edits: Iterable[Edit], **options: Any) -> AddManyReport:
        """Add facts in bulk; see :meth:`memory_store.EditMemory.add_many`.

        Args:
            edits: Drafts; those that name no namespace go to the model's own.
            **options: As the memory's method takes them.
        """
        return self.memory.add_many((self._placed(edit) for edit in edits), **options)

    def _placed(self, edit: Edit) -> Edit:
        """The edit in the model's namespace, unless it names one."""
        return replace(edit, namespace=self.namespace) if edit.namespace == DEFAULT_NAMESPACE else edit

    def update(self, edit_id: str, **changes: Any) -> Edit:
        """Change an edit; its history keeps what it was.

        Args:
            edit_id: Its id, or the beginning of it.
            **changes: New values of its fields.
        """
        return self.memory.update(edit_id, **changes)

    def remove(self, edit_id: str) -> Edit:
        """Take an edit out of force; it can be restored."""
        return self.memory.remove(edit_id)

    def restore(self, edit_id: str) -> Edit:
        """Put a removed edit back in force."""
        return self.memory.restore(edit_id)

    @contextmanager
    def edits_disabled(self) -> Iterator[None]:
        """The base model, untouched, for the length of a ``with`` block; other threads are not affected."""
        token = _DISABLED.set(_DISABLED.get() | {id(self)})
        try:
            yield
        finally:
            _DISABLED.reset(token)

    def close(self) -> None:
        """Close the memory. The base model is not affected."""
        self.memory.close()

    # -- generating ------------------------------------------------------------------------------------------------

    def generate(self, inputs: torch.Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Generate, as ``transformers.GenerationMixin.generate`` does, row by row from the edited or the base model.

        Where no edit governs a row, the call goes to the base model verbatim. In a mixed batch the rows that no edit
        governs are bit for bit those of the base model's own call.

        Args:
            inputs: Token ids, ``[rows, width]``, left-padded; also as ``input_ids``.
            *args: As the base model's ``generate`` takes them.
            **kwargs: As the base model's ``generate`` takes them.

        Returns:
            What the base model returns: each row is the caller's own prompt and its continuation. The context that a
            governed row was answered from is nowhere in it; ``past_key_values`` of a governed call is None.

        Raises:
            UnsupportedCallError: A prompt is governed and the call asks for something that cannot be had for it, or
                the batch is padded on the right.
        """
        bound = bind(self.unedited.generate, inputs, *args, **kwargs)
        plan = self._plan_generate(bound)
        if plan is None or not plan.contexts:
            return self.unedited.generate(inputs, *args, **kwargs)
        config = bound.get("generation_config")
        refuse(bound, REFUSED_IN_GENERATE, (config, self.unedited.generation_config))
        end = self._setting("eos_token_id", bound)
        scripted = any(context.script is not None for context in plan.contexts.values())
        injection = ContextInjection(
            self.unedited,
            plan.mask,
            plan.contexts,
            answering=self.responder.model,
            end_of_text=end[0] if isinstance(end, list) else end,
            padding=self._setting("pad_token_id", bound),
            writing=self._writing(bound, plan.mask.shape[1]) if scripted else None,
        )
        outputs = injection.attach().generate(inputs, *args, **kwargs)
        if not injection.used:
            raise UnsupportedCallError(
                f"{type(self.unedited).__name__} does not call its own forward in generate, so an edit cannot reach "
                "it; wrap the transformers model inside it instead"
            )
        if hasattr(outputs, "past_key_values"):
            outputs.past_key_values = None
        return outputs

    def forward(self, input_ids: torch.Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Logits, as the base model's ``forward`` gives them, for the caller's own positions.

        Where ``labels`` are given, what stands before the first label other than -100 is the question, so that an
        answer being scored does not route itself; without labels the whole row is.

        Args:
            input_ids: Token ids, ``[rows, width]``, padded on either side.
            *args: As the base model's ``forward`` takes them.
            **kwargs: As the base model's ``forward`` takes them.

        Returns:
            The base model's output. In a call with a governed row it holds ``loss`` and ``logits``
            (``[rows, width, vocabulary]``) and no cache that could be used again.

        Raises:
            UnsupportedCallError: A prompt is governed and the call asks for something that cannot be had for it.
        """
        bound = bind(self.unedited.forward, input_ids, *args, **kwargs)
        if isinstance(bound.get("past_key_values"), _NoCache):
            bound["past_key_values"].refuse()
        plan = None if bound.get("past_key_values") is not None else self._plan_forward(bound)
        if plan is None or not plan.contexts:
            return self.unedited(input_ids, *args, **kwargs)
        refuse(bound, REFUSED_IN_FORWARD, (self.unedited.config,))
        return self._governed_forward(bound, plan)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`forward`."""
        return self.forward(*args, **kwargs)

    @overload
    def chat(self, messages: Messages, *, stream: Literal[False] = False, **generate_kwargs: Any) -> str: ...

    @overload
    def chat(self, messages: Messages, *, stream: Literal[True], **generate_kwargs: Any) -> TextStream: ...

    def chat(self, messages: Messages, *, stream: bool = False, **generate_kwargs: Any) -> str | TextStream:
        """Answer the last turn of a conversation.

        Args:
            messages: ``{"role": ..., "content": ...}`` mappings, oldest first; the last one a user's.
            stream: Give the answer piece by piece as it is generated.
            **generate_kwargs: Passed on to :meth:`generate`; at most 256 new tokens unless said otherwise.

        Returns:
            The answer's text, or a :class:`memedit.streaming.TextStream` over its pieces, which can be closed early.

        Raises:
            InvalidPromptError: The messages are malformed, or the model has no chat template.
        """
        inputs = self._render(messages)
        if stream:
            from memedit.streaming import TextStream

            return TextStream(self.generate, self.tokenizer, {**inputs, **_limited(generate_kwargs)})
        return self._complete(inputs, generate_kwargs)[0]

    def ask(self, prompt: str, **generate_kwargs: Any) -> Answer:
        """Answer one prompt: as a chat message where the model has a chat template, else as plain text.

        Args:
            prompt: What the user typed.
            **generate_kwargs: Passed on to :meth:`generate`; at most 256 new tokens unless said otherwise.

        Raises:
            InvalidPromptError: The prompt is empty.
        """
        started = time.perf_counter()
        inputs = self._as_inputs(prompt)
        decision = self._decide(inputs)
        text, tokens = self._complete(inputs, generate_kwargs)
        return Answer(prompt, text, decision, time.perf_counter() - started, tokens)

    def decide(self, prompt: str | Messages) -> Decision:
        """Which edit governs a prompt or a conversation, without answering it.

        Args:
            prompt: A plain prompt, as :meth:`ask` takes it, or chat messages.
        """
        return self._decide(self._as_inputs(prompt))

    def explain(self, prompt: str | Messages) -> Explanation:
        """Which edit governs a prompt, with what probability, why, what the model sees, and what it costs.

        Args:
            prompt: A plain prompt, as :meth:`ask` takes it, or chat messages.
        """
        inputs = self._as_inputs(prompt)
        (row,) = self._reader.read_batch(inputs["input_ids"], inputs["attention_mask"])
        (decision,) = self._route([row], thorough=True)
        context = self.responder.context(row, decision) if decision.governed else Context(())
        spliced = self._reader.decode(splice(row.ids, context.insertions)[0])
        answering = self.responder.name
        if self.responder is self._choice.responder and self.mode_reason != "asked for":
            answering = f"{answering} ({self.mode_reason})"
        return Explanation(
            prompt=row.text,
            decision=decision,
            responder=answering if decision.governed else "base model",
            seen=spliced if context.script is None else context.script.seen,
            prompt_tokens=len(row.ids),
            context_tokens=max(0, context.length),
        )

    # -- planning --------------------------------------------------------------------------------------------------

    @property
    def _disabled(self) -> bool:
        return id(self) in _DISABLED.get()

    @property
    def _enabled(self) -> bool:
        return not self._disabled and not self.memory.is_empty(namespaces=self.router.namespaces)

    def _plan_generate(self, bound: Mapping[str, Any]) -> _Plan | None:
        """What to do with the rows of a `generate` call; None where the base model answers without a look."""
        ids: Any = bound["inputs"] if bound.get("inputs") is not None else bound.get("input_ids")
        if not self._enabled or not _has_ids(bound, ids, REFUSED_IN_GENERATE):
            return None
        attention_mask = bound.get("attention_mask")
        if bound.get("past_key_values") is not None and attention_mask is not None:
            attention_mask = attention_mask[:, -ids.shape[1] :]
        mask = self._mask(ids, attention_mask, bound)
        plan = self._plan(ids, mask)
        if plan.contexts and bool(((mask[:, -1] == 0) & (mask.sum(1) > 0)).any()):
            raise UnsupportedCallError(
                "the batch is padded on the right, where a decoder-only model would have to go on from padding; "
                "set tokenizer.padding_side = 'left' and tokenize again"
            )
        if plan.contexts and bound.get("streamer") is not None and len(plan.prompts) > 1:
            raise UnsupportedCallError(f"a streamer takes one row, given {len(plan.prompts)}; stream one prompt a call")
        return plan

    def _plan_forward(self, bound: Mapping[str, Any]) -> _Plan | None:
        ids: Any = bound.get("input_ids")
        if not self._enabled or not _has_ids(bound, ids, REFUSED_IN_FORWARD):
            return None
        mask = self._mask(ids, bound.get("attention_mask"), None)
        labels = bound.get("labels")
        asked = mask if labels is None else mask * ((labels != -100).cumsum(1) == 0).to(mask)
        return self._plan(ids, mask, asked)

    def _plan(self, ids: torch.Tensor, mask: torch.Tensor, asked: torch.Tensor | None = None) -> _Plan:
        """Read, route, and build the context of governed rows.

        Args:
            ids: Token ids, ``[rows, width]``.
            mask: 1 for the row's own tokens, ``[rows, width]``.
            asked: 1 for the tokens of the question, where that is not the whole row.
        """
        prompts = self._reader.read_batch(ids, mask if asked is None else asked)
        decisions = self._route(prompts)
        contexts = {
            row: self.responder.context(prompt, decision)
            for row, (prompt, decision) in enumerate(zip(prompts, decisions, strict=True))
            if decision.governed
        }
        self._check_lengths(mask, decisions, contexts)
        return _Plan(mask, prompts, decisions, contexts)

    def _check_lengths(
        self, mask: torch.Tensor, decisions: Sequence[Decision], contexts: Mapping[int, Context]
    ) -> None:
        """Refuse a row that its context makes longer than the model reads.

        Raises:
            UnsupportedCallError: There is such a row.
        """
        answering = self.responder.model if self.responder.model is not None else self.unedited
        longest = max_positions(answering)
        for row, context in contexts.items():
            own = int(mask[row].sum())
            if longest is not None and own + context.length >= longest:
                raise UnsupportedCallError(
                    f"row {row} has {own} tokens and the edit {decisions[row].edits[0].id} that governs it adds "
                    f"{context.length} of context, more than the {longest} that the model reads; shorten the prompt or "
                    "the edit's text, or use edits_disabled()"
                )

    def _route(self, prompts: Sequence[RowPrompt], *, thorough: bool = False) -> list[Decision]:
        if self._disabled:
            return [self._ungoverned(prompt, "edits are disabled here") for prompt in prompts]
        asked = [prompt.query for prompt in prompts if prompt.query is not None]
        routed = iter(self.router.route(asked, thorough=thorough))
        decisions = [
            next(routed)
            if prompt.query is not None
            else self._ungoverned(prompt, "no question was found in the prompt")
            for prompt in prompts
        ]
        return confirmed(self.responder, prompts, decisions)

    def _ungoverned(self, prompt: RowPrompt, reason: str) -> Decision:
        query = prompt.query if prompt.query is not None else Query(text=prompt.text, windows=())
        return Decision(query, (), 0.0, self.router.scope.threshold, reason, (), RoutingTimings())

    def _decide(self, inputs: Mapping[str, torch.Tensor]) -> Decision:
        prompts = self._reader.read_batch(inputs["input_ids"], inputs["attention_mask"])
        return self._route(prompts, thorough=True)[0]

    def _mask(
        self, ids: torch.Tensor, attention_mask: torch.Tensor | None, bound: Mapping[str, Any] | None
    ) -> torch.Tensor:
        """1 for the caller's own tokens, inferred as ``generate`` infers it where no mask is given."""
        import torch

        if ids.dim() != 2:
            raise UnsupportedCallError(f"input_ids must have the shape [rows, width], given {list(ids.shape)}")
        if attention_mask is not None:
            if attention_mask.shape != ids.shape:
                raise UnsupportedCallError(
                    f"attention_mask has the shape {list(attention_mask.shape)} and input_ids {list(ids.shape)}; "
                    "edits need one mask value a token"
                )
            return (attention_mask != 0).to(ids)
        if bound is not None:
            pad = self._setting("pad_token_id", bound)
            eos = self._setting("eos_token_id", bound)
            if pad is not None and pad not in (eos if isinstance(eos, list) else [eos]):
                return torch.ne(ids, int(pad)).to(ids)
        return torch.ones_like(ids)

    def _writing(self, bound: Mapping[str, Any], width: int) -> Writing:
        """How a model of another vocabulary is to answer beforehand: as the call says, as far as that makes sense.

        Args:
            bound: The call's arguments.
            width: Tokens of the widest prompt.

        Raises:
            UnsupportedCallError: Several answers are wanted of beam search, which has only one to search.
        """
        samples = bool(self._setting("do_sample", bound))
        beams = (self._setting("num_beams", bound) or 1) > 1
        copies = self._setting("num_return_sequences", bound) or 1
        if beams and copies > 1:
            raise UnsupportedCallError(
                "num_return_sequences with num_beams cannot be honoured where the counterfactual model has another "
                'vocabulary than the base model: it has one answer; sample (do_sample=True), or use mode "ike"'
            )
        most, least = self._setting("max_new_tokens", bound), self._setting("min_new_tokens", bound)
        shortest = self._setting("min_length", bound)
        # the model's own max_length is not looked at: `generate` counts a default one from the prompt's end
        length = bound.get("max_length") or getattr(bound.get("generation_config"), "max_length", None)
        limit = most if most is not None else length - width if length is not None else None
        settings = {name: self._setting(name, bound) for name in _SAMPLING}
        sampling = {"do_sample": True, **{name: value for name, value in settings.items() if value is not None}}
        return Writing(
            limit=None if limit is None else max(1, int(limit)),
            least=max(int(least or 0), int(shortest or 0) - width),
            copies=int(copies) if samples else 1,
            beams=beams,
            sampling=sampling if samples else {},
        )

    def _setting(self, name: str, bound: Mapping[str, Any]) -> Any:
        """A generation setting: of the call, else of its config, else of the model."""
        for value in (
            bound.get(name),
            getattr(bound.get("generation_config"), name, None),
            getattr(self.unedited.generation_config, name, None),
        ):
            if value is not None:
                return value
        return None

    # -- answering -------------------------------------------------------------------------------------------------

    def _governed_forward(self, bound: dict[str, Any], plan: _Plan) -> Any:
        from transformers.modeling_outputs import CausalLMOutputWithPast

        ids: torch.Tensor = bound["input_ids"]
        labels, keep = bound.get("labels"), bound.get("logits_to_keep", 0)
        if not isinstance(keep, int):
            raise UnsupportedCallError("logits_to_keep must be a number where an edit governs a row, not a tensor")
        named = {
            "input_ids",
            "attention_mask",
            "labels",
            "logits_to_keep",
            "use_cache",
            "return_dict",
            "num_items_in_batch",
        }
        others = {name: value for name, value in bound.items() if name not in named and value is not None}
        rows = sorted(plan.contexts)
        own = [ids[row][plan.mask[row] == 1].tolist() for row in rows]
        answering = self.responder.model if self.responder.model is not None else self.unedited
        governed = governed_logits(
            answering,
            own,
            [plan.contexts[row].for_likelihoods() for row in rows],
            device=answering.device,
            forward_kwargs=others,
        )
        if len(rows) == ids.shape[0]:
            logits = governed[0].new_zeros((*ids.shape, governed[0].shape[-1]))
        else:
            mask = bound.get("attention_mask")
            logits = self.unedited(input_ids=ids, attention_mask=mask, use_cache=False, **others).logits.clone()
        for row, values in zip(rows, governed, strict=True):
            logits[row, plan.mask[row].nonzero().squeeze(1)] = values.to(logits)
        loss = None
        if labels is not None:
            extra = {name: bound[name] for name in ("num_items_in_batch",) if bound.get(name) is not None}
            loss = self.unedited.loss_function(
                logits=logits, labels=labels.to(logits.device), vocab_size=logits.shape[-1], **extra
            )
        if keep:
            logits = logits[:, -keep:]
        use_cache = bound.get("use_cache")
        cached = self.unedited.config.use_cache if use_cache is None else use_cache
        outputs = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=_NoCache() if cached else None)
        return outputs.to_tuple() if bound.get("return_dict") is False else outputs

    def _complete(self, inputs: Mapping[str, torch.Tensor], generate_kwargs: Mapping[str, Any]) -> tuple[str, int]:
        """The continuation's text, and how many tokens it has."""
        if generate_kwargs.get("num_return_sequences") not in (None, 1):
            raise UnsupportedCallError("ask and chat give one answer; use generate for num_return_sequences")
        sequences = self.generate(**inputs, **_limited(generate_kwargs))
        if isinstance(sequences, Mapping):
            sequences = sequences["sequences"]
        continuation = sequences[0, inputs["input_ids"].shape[1] :]
        return self.tokenizer.decode(continuation, skip_special_tokens=True).strip(), len(continuation)

    def _as_inputs(self, prompt: str | Messages) -> dict[str, torch.Tensor]:
        """Token ids and mask of a prompt or a conversation, one row, on the model's device."""
        if not isinstance(prompt, str):
            return self._render(prompt)
        if not prompt.strip():
            raise InvalidPromptError("the prompt is empty: there is nothing to answer; pass some text")
        if self._reader.chat_format is not None and self._reader.chat_format.parse(prompt) is None:
            return self._render([{"role": "user", "content": prompt}])
        encoded = self.tokenizer(prompt, return_tensors="pt").to(self.unedited.device)
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}

    def _render(self, messages: Messages) -> dict[str, torch.Tensor]:
        """Chat messages through the chat template, with its generation prompt."""
        _check_messages(messages)
        if not getattr(self.tokenizer, "chat_template", None):
            raise InvalidPromptError(
                "the model has no chat template, so it takes no messages; use ask(prompt) or generate(...)"
            )
        encoded = self.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        ).to(self.unedited.device)
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


class _NoCache:
    """Stands where a governed call of ``forward`` has no cache to give; any use of it says what to do instead."""

    def refuse(self) -> None:
        raise UnsupportedCallError(
            "forward keeps no cache for a prompt that an edit governs, so a decoding loop of one's own cannot go on "
            "from it; call generate, or pass the whole text each time with use_cache=False"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.refuse()
        raise AttributeError(name)


def _has_ids(bound: Mapping[str, Any], ids: Any, refused: Mapping[str, str]) -> bool:
    """Whether the call brings token ids; embeddings in their place are refused, nothing at all is the base model's."""
    if ids is None and bound.get("inputs_embeds") is not None:
        refuse(bound, {"inputs_embeds": refused["inputs_embeds"]}, ())
    return ids is not None


def _limited(generate_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Generation options with a limit on the answer's length, where the caller set none."""
    if {"max_new_tokens", "max_length", "generation_config"} & generate_kwargs.keys():
        return dict(generate_kwargs)
    return {"max_new_tokens": DEFAULT_ANSWER_TOKENS, **generate_kwargs}


def _check_messages(messages: Any) -> None:
    if isinstance(messages, str) or not isinstance(messages, Sequence) or not messages:
        raise InvalidPromptError(f"messages must be a list of at least one message, given {messages!r}")
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InvalidPromptError(f"message {place} must be a mapping with 'role' and 'content', given {message!r}")
        if not isinstance(message.get("content"), str):
            raise InvalidPromptError(
                f"message {place} must have text as its 'content', given {message.get('content')!r}"
            )
    if messages[-1]["role"] == "assistant":
        raise InvalidPromptError("the last message is the assistant's: end with a user's message, which is answered")
