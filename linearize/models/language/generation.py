"""Continuations of prompts by a decoder: at θ0, at θ0 + α τ, or from its tangent f0 + α J τ.

A batch's prompts are read at once, padded behind; then each row goes on from its own end, with its
own key, so that neither its neighbours nor their padding change it. The tangent's cache is the
cache and its derivative: f_lin needs no more of the past than f does. An encoder–decoder reads the
prompt with its encoder, and its answer is the continuation.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linearize import fields, tree
from linearize.choices import one_of
from linearize.compiled import jit
from linearize.fields import integer, number
from linearize.models import layers
from linearize.models.language.model import LanguageModel
from linearize.models.language.sampling import Sampling
from linearize.models.language.tokens import LanguageTokenizer, check_vocabulary, named
from linearize.narration import paced
from linearize.task_vector import TaskVector
from linearize.taylor import along
from linearize.types import Array, Flat, Params, PyTree

VIEWS = ("displaced", "tangent")
_ROUND = 16
"""Prompts of several lengths are padded to a multiple of it, so that calls share a program."""

Read = tuple[Array, dict[str, Array]]
"""Logits (B, V) after some tokens, and the cache with them."""
Forward = Callable[[Params, PyTree], Read]
"""``(params, cache) -> (logits, cache)`` of some tokens."""


@dataclass(frozen=True, eq=False)
class Continuations:
    """What follows N prompts.

    Attributes:
        prompts: their tokens.
        tokens: (N, new) int32; after its end a row repeats it.
        lengths: (N,) tokens of each up to its end, that included.
        finished: (N,) whether an end came.
        texts: N continuations as text, without special tokens; None without a tokenizer.
    """

    prompts: list[list[int]]
    tokens: np.ndarray
    lengths: np.ndarray
    finished: np.ndarray
    texts: list[str] | None

    def __len__(self) -> int:
        """N."""
        return len(self.prompts)


def generate(
    model: LanguageModel,
    prompts: Sequence[str] | Sequence[Sequence[int]] | np.ndarray,
    *,
    tokenizer: LanguageTokenizer | None = None,
    new: int = 128,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    ends: int | Sequence[int] | None = None,
    batch_size: int = 32,
    tau: PyTree = None,
    alpha: float = 1.0,
    view: str = "displaced",
) -> Continuations:
    """Continue prompts, by default by ancestral sampling.

    Args:
        model: a decoder or an encoder–decoder, of
            :func:`linearize.models.language.load_language`.
        prompts: N texts, for which a tokenizer is needed; or N rows of tokens, of any lengths,
            without padding: an array's is refused where the tokenizer tells it. Before a text
            stands what the tokenizer sets there, behind it nothing that a decoder would have to go
            on from; an empty text begins with the ``bos`` token.
        tokenizer: the model's; also for the continuations' texts.
        new: tokens to add at most.
        temperature: of :class:`Sampling`; 0 takes the likeliest token.
        top_k: likewise.
        top_p: likewise.
        seed: of all draws; with the number of its prompt it decides a row, whatever stands in the
            other rows.
        ends: tokens that end a continuation; by default all that the tokenizer knows to end one,
            ``eos`` and the likes of ``<|im_end|>`` (:attr:`LanguageTokenizer.ends`), none without a
            tokenizer; ``()`` for none.
        batch_size: prompts at a time.
        tau: a task vector, or any mapping of leaves' names to displacements.
        alpha: its coefficient.
        view: of θ0 + α τ: ``"displaced"``, the model there; ``"tangent"``, its linearization.

    Raises:
        ValueError: an argument out of its range, a prompt that is empty, of other tokens than the
            model's or too long for its context with what is to come (all are named), or a model
            that is no decoder.
        TokenizerError: the tokenizer is another model's, or has no ``bos`` that is needed.
        StructureMismatch: ``tau`` is of another model, or of another θ0.
        NonFiniteError: logits that are not finite; the rows are named.
    """
    decoder = _Decoder.of(model)
    one_of("view", view, VIEWS)
    new, batch_size = integer("new", new, low=1), integer("batch_size", batch_size, low=1)
    seed, alpha = fields.seed("seed", seed), number("alpha", alpha)
    sampling = Sampling(number("temperature", temperature), top_k, top_p)
    if tokenizer is not None:
        check_vocabulary(tokenizer, model.vocabulary)
        known = [n for n in tokenizer.ends if n < model.vocabulary]
        ends = known if ends is None else ends
    stops = np.zeros(model.vocabulary, bool)
    stops[_stops(model, () if ends is None else ends)] = True
    rows = _tokens(model, prompts, tokenizer)
    longest = max(map(len, rows))
    most = math.inf if model.context is None else model.context
    if long := [i for i, row in enumerate(rows) if len(row) + new > most]:
        raise ValueError(
            f"{named('prompts', long)}: up to {longest} tokens and new={new} are more than the "
            f"context of {model.context}; shorten the prompts, or ask for fewer new tokens"
        )
    moved = None if tau is None else tree.flatten(tau)
    if isinstance(tau, TaskVector):
        tau.check(model.params)
    elif moved is not None:
        tree.check_subset(model.params, moved, what="tau")
    level = len(set(map(len, rows))) == 1
    width = longest if level else int(min(-(-longest // _ROUND) * _ROUND, most - new))
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))
    run = functools.partial(
        _run,
        decoder,
        sampling,
        new,
        level or decoder.start is not None,
        view == "tangent" and moved is not None,
        model.params,
        moved,
        jnp.float32(alpha),
        jnp.asarray(stops),
    )
    size = min(batch_size, len(rows))
    found = []
    for start in paced(range(0, len(rows), size), "batches of continuations"):
        # the last batch is filled with prompts again, whose rows are left out
        numbers = np.minimum(np.arange(start, start + size), len(rows) - 1)
        padded = np.zeros((size, width), np.int32)
        for line, i in zip(padded, numbers, strict=True):
            line[: len(rows[i])] = rows[i]
        lengths = jnp.asarray([len(rows[i]) for i in numbers])
        found.append(jax.device_get(run(jnp.asarray(padded), lengths, keys(numbers))))
    tokens, counts, finished, sound = (
        np.concatenate(each)[: len(rows)] for each in zip(*found, strict=True)
    )
    if not sound.all():
        wrong = np.flatnonzero(~sound).tolist()
        raise tree.NonFiniteError(
            f"{named('prompts', wrong)}: logits that are not finite, at alpha={alpha}; is the "
            "model, or the displacement, beyond what its dtype holds?"
        )
    kept = [row[:count] for row, count in zip(tokens, counts, strict=True)]
    texts = None if tokenizer is None else tokenizer.decode(kept)
    return Continuations(rows, tokens, counts, finished, texts)


def _stops(model: LanguageModel, ends: int | Sequence[int]) -> np.ndarray:
    found = np.atleast_1d(np.asarray(ends))
    if found.size and (
        not np.issubdtype(found.dtype, np.integer)
        or found.min() < 0
        or found.max() >= model.vocabulary
    ):
        raise ValueError(
            f"ends={ends!r:.80}; expected tokens from 0 to {model.vocabulary - 1}, or () for none"
        )
    return found.astype(int)


def _tokens(
    model: LanguageModel, prompts: Any, tokenizer: LanguageTokenizer | None
) -> list[list[int]]:
    """The prompts' tokens, checked."""
    if isinstance(prompts, str) or not len(prompts):
        raise ValueError(f"prompts={prompts!r:.80}; expected a list of one prompt or more")
    if any(isinstance(prompt, str) for prompt in prompts):
        if tokenizer is None:
            raise ValueError(
                "prompts are texts: give tokenizer=, of linearize.models.language.load_tokens"
            )
        read = tokenizer.ids(prompts, framed=True)
        if model.encode is None:
            read = [ids[: len(ids) - tokenizer.behind] for ids in read]
        prompts = [ids or [tokenizer.bos] for ids in read]
    rows = [np.asarray(prompt) for prompt in prompts]
    wrong = [
        i
        for i, row in enumerate(rows)
        if row.ndim != 1
        or not row.size
        or not np.issubdtype(row.dtype, np.integer)
        or row.min() < 0
        or row.max() >= model.vocabulary
    ]
    if wrong:
        raise ValueError(
            f"{named('prompts', wrong)}: {rows[wrong[0]]!r:.80}; expected one token or more, each "
            f"from 0 to {model.vocabulary - 1}, the vocabulary of {model.name}"
        )
    told = None if isinstance(prompts, Sequence) else tokenizer  # lists hold their own tokens
    if told is not None and (padded := [i for i, row in enumerate(rows) if _padded(row, told)]):
        raise ValueError(
            f"{named('prompts', padded)}: padding at an end, which the model would read as words; "
            "give a list of each row's own tokens, row[mask], or the texts"
        )
    return [row.tolist() for row in rows]


def _padded(row: np.ndarray, tokenizer: LanguageTokenizer) -> bool:
    """Whether a row of an array begins or ends with padding: twice, where that may be a word."""
    special = tokenizer.special
    pad = special.get("pad", special.get("eos"))
    times = 2 if pad in (special.get("bos"), special.get("eos")) else 1
    ends = row[:times], row[-times:]
    return len(row) > times and any((end == pad).all() for end in ends)


class _Rows(NamedTuple):
    """Where a batch stands after t tokens.

    Attributes:
        t: tokens drawn.
        tokens: (B, new).
        counts: (B,) tokens of each row up to its end.
        finished: (B,) whether it has come.
        sound: (B,) whether all logits were finite.
        cache: what was seen; ``seen`` is (B,) where rows differ in it.
        moved: the derivative of its floating leaves along τ.
    """

    t: Array
    tokens: Array
    counts: Array
    finished: Array
    sound: Array
    cache: PyTree
    moved: Flat


@dataclass(frozen=True)
class _Decoder:
    """What continues a prompt.

    Attributes:
        step: as of :class:`LanguageModel`, and so are ``head``, ``cache`` and ``encode``.
        start: the token that an encoder–decoder's answer begins after; None of a decoder.
    """

    step: Callable[..., Any]
    head: Callable[..., Array]
    cache: Callable[..., PyTree] | None
    encode: Callable[..., PyTree] | None
    start: int | None

    @classmethod
    def of(cls, model: LanguageModel) -> "_Decoder":
        """Of a model that has cached steps."""
        missing = model.cache is None and model.encode is None
        if model.step is None or model.head is None or missing:
            raise ValueError(f"{model.name} is no decoder; it has no cached steps to go on by")
        start = None if model.encode is None else model.about["architecture"]["start"]
        return cls(model.step, model.head, model.cache, model.encode, start)

    def room(self, params: Params, prompts: Array, mask: Array, new: int) -> PyTree:
        """A cache for ``new`` more tokens."""
        if self.encode is not None:
            return self.encode(params, prompts, mask, 1 + new)
        assert self.cache is not None
        return self.cache(prompts.shape[0], prompts.shape[1] + new)

    def first(self, params: Params, prompts: Array, lengths: Array, new: int, level: bool) -> Read:
        """Logits after the prompts, and the cache with them; ``level`` where all are as long."""
        (B, P) = prompts.shape
        cache = self.room(params, prompts, jnp.arange(P)[None] < lengths[:, None], new)
        if self.start is not None:
            prompts, lengths = jnp.full((B, 1), self.start), jnp.ones(B, jnp.int32)
        hidden, cache = self.step(params, prompts, cache)
        # what is padded has been seen too: it is written over, one token after the other
        cache = cache if level else {**cache, "seen": lengths}
        return self.head(params, hidden[jnp.arange(B), lengths - 1]), cache

    def next(self, params: Params, tokens: Array, cache: PyTree, axes: PyTree) -> Read:
        """Logits after one more token of each row.

        ``axes`` are those of the cache's leaves that are the rows', where each row has seen another
        number of tokens; None where all have seen the same.
        """
        if axes is None:
            hidden, cache = self.step(params, tokens[:, None], cache)
            return self.head(params, hidden[:, 0]), cache

        def row(token: Array, cache: PyTree) -> tuple[Array, PyTree]:
            own = {n: x if n == "seen" else jnp.expand_dims(x, axes[n]) for n, x in cache.items()}
            hidden, own = self.step(params, token[None, None], own)
            out = {n: x if n == "seen" else jnp.squeeze(x, axes[n]) for n, x in own.items()}
            return hidden[0, 0], out

        hidden, cache = jax.vmap(row, in_axes=(0, axes), out_axes=(0, axes))(tokens, cache)
        return self.head(params, hidden), cache

    def axes(self, params: Params, prompts: Array, new: int) -> dict[str, int]:
        """The rows' axis of each leaf of a cache, found by a batch of one and of two."""

        def cache(count: int) -> PyTree:
            rows = jax.ShapeDtypeStruct((count, prompts.shape[1]), jnp.int32)
            mask = jax.ShapeDtypeStruct(rows.shape, bool)
            room = jax.eval_shape(functools.partial(self.room, new=new), params, rows, mask)
            return jax.eval_shape(layers.unstack, room)

        def axis(one: Any, two: Any) -> int:
            return next((i for i, (m, n) in enumerate(zip(one, two, strict=True)) if m < n), 0)

        return jax.tree.map(lambda one, two: axis(one.shape, two.shape), cache(1), cache(2))


@functools.partial(jit, static_argnums=(0, 1, 2, 3, 4))
def _run(
    decoder: _Decoder,
    sampling: Sampling,
    new: int,
    level: bool,
    tangent: bool,
    params: Params,
    tau: Flat | None,
    alpha: Array,
    ends: Array,
    prompts: Array,
    lengths: Array,
    keys: Array,
) -> tuple[Array, Array, Array, Array]:
    """Tokens (B, new), their counts, and whether each row is finished and sound."""
    (B, _) = prompts.shape
    if tau is not None and not tangent:
        params, tau = tree.add(params, tau, alpha), None
    elif tau is not None:
        tau = {name: alpha * leaf for name, leaf in tau.items()}
    axes = None if level else decoder.axes(params, prompts, new)

    def drawn(state: _Rows, logits: Array, cache: PyTree, moved: Flat) -> _Rows:
        at = jax.vmap(functools.partial(jax.random.fold_in, data=state.t))(keys)
        token = sampling.draw(at, logits)
        last = jnp.take(state.tokens, jnp.maximum(state.t - 1, 0), axis=1)
        token = jnp.where(state.finished, last, token)
        return _Rows(
            state.t + 1,
            jax.lax.dynamic_update_slice_in_dim(state.tokens, token[:, None], state.t, 1),
            state.counts + ~state.finished,
            state.finished | ends[token],
            state.sound & (state.finished | jnp.isfinite(logits).all(-1)),
            cache,
            moved,
        )

    def body(state: _Rows) -> _Rows:
        last = jnp.take(state.tokens, state.t - 1, axis=1)

        def forward(params: Params, cache: PyTree) -> Read:
            return decoder.next(params, last, cache, axes)

        return drawn(state, *_advanced(forward, params, tau, state.cache, state.moved))

    def first(params: Params, _: PyTree) -> Read:
        return decoder.first(params, prompts, lengths, new, level)

    none = jnp.zeros(B, bool)
    start = _Rows(
        jnp.int32(0), jnp.zeros((B, new), jnp.int32), jnp.zeros(B, jnp.int32), none, ~none, None, {}
    )
    state = drawn(start, *_advanced(first, params, tau, {}, {}))
    if layers.is_stacked(state.cache):  # scanned blocks would be cut out anew for every token
        params, tau = layers.unstack(params), None if tau is None else layers.unstack(tau)
        apart = {"cache": layers.unstack(state.cache), "moved": layers.unstack(state.moved)}
        state = state._replace(**apart)
    state = jax.lax.while_loop(lambda s: (s.t < new) & ~s.finished.all(), body, state)
    last = jnp.take(state.tokens, state.t - 1, axis=1)
    tokens = jnp.where((jnp.arange(new) < state.t)[None], state.tokens, last[:, None])
    return tokens, state.counts, state.finished, state.sound


def _advanced(
    forward: Forward, params: Params, tau: Flat | None, cache: PyTree, moved: Flat
) -> tuple[Array, PyTree, Flat]:
    """Logits after some tokens, the cache with them, and its derivative along τ."""
    if tau is None:
        return (*forward(params, cache), moved)
    direction = {f"params/{n}": x for n, x in tau.items()} | {
        f"cache/{n}": x for n, x in moved.items()
    }
    (logits, seen), (push, pushed) = along(
        lambda both: forward(both["params"], both["cache"]),
        {"params": params, "cache": cache},
        direction,
    )
    _, kept = jax.eval_shape(forward, params, cache)  # whose 16-bit leaves were widened
    moved = {n: pushed[n].astype(x.dtype) for n, x in kept.items() if tree.is_trainable(x)}
    return logits + push, {n: seen[n].astype(x.dtype) for n, x in kept.items()}, moved
