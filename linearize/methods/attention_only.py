"""Attention-only: fine-tuning of the attention's matrices, and of nothing else.

*Fine-Tuning Attention Modules Only* (Jin et al., ICLR 2025) trains W_q, W_k, W_v and W_o, without
their biases, by ordinary fine-tuning with the recipe of *Task Arithmetic in the Tangent Space*: all
matrices of a block but its MLP's are near enough to linear that vectors add as those of the
tangent regime do, at the cost of the non-linear one.
"""

import re
from functools import partial

import numpy as np

from linearize import tree
from linearize.methods.fine_tuning import fine_tune
from linearize.methods.regimes import posthoc
from linearize.study import Method, Study
from linearize.types import Params

_MODULE = re.compile(r"(?i)[a-z_]*(attention|attn|mha|multi_?head)(_?\d+)?")
"""A part of a name that is a module of attention: ``attn``, ``MultiHeadDotProductAttention_0``."""
_KIND = r"(_?(proj|projection|kernel|weight))?"
_JOINED = re.compile(rf"(?i)((to_?|w_?)?qkv|query_key_value){_KIND}|c_attn|in_proj(_weight)?")
_APART = re.compile(rf"(?i)(?:to_?|w_?)?(q|k|v|query|key|value){_KIND}")
"""Parts that are projections to queries, keys and values, together or one of them."""
_OUT = re.compile(rf"(?i)((to_?|w_?)?(o|out|output){_KIND})|c_proj|proj")
"""A part beside them that is the projection back."""
_OTHER = re.compile(
    r"(?i)bias|scale|norm|mlp|ffn|feed_?forward|embed|position|gamma|beta|^ln|_ln$|^b$|^b_"
)
"""A part below a module of attention that is none of its matrices."""


def leaves(params: Params) -> tuple[str, ...]:
    """Names of the attention's matrices: below a module of attention, or beside W_q, W_k and W_v.

    Args:
        params: of a linen or nnx model, scanned or not, or of any other whose names say it.

    Raises:
        ValueError: there is none; all names are listed.

    >>> import numpy as np
    >>> kernel = {"kernel": np.ones((2, 2)), "bias": np.ones(2)}
    >>> params = {"attn": {"qkv": kernel, "proj": kernel}, "mlp": {"Dense_0": kernel}}
    >>> leaves(params)
    ('attn/proj/kernel', 'attn/qkv/kernel')
    """
    flat = tree.flatten(params)
    parts = {name: tuple(name.split("/")) for name in tree.select(params)}
    beside: dict[tuple[str, ...], set[str]] = {}
    for each in parts.values():
        for i, part in enumerate(each):
            kind = _APART.fullmatch(part)
            if kind or _JOINED.fullmatch(part):
                kinds = kind.group(1).lower()[0] if kind else "qkv"
                beside.setdefault(each[:i], set()).update(kinds)
    modules = {place for place, kinds in beside.items() if kinds >= set("qkv")}

    def belongs(each: tuple[str, ...]) -> bool:
        for i, part in enumerate(each):
            named = i > 0 and _MODULE.fullmatch(each[i - 1])
            projects = each[:i] in modules and any(
                kind.fullmatch(part) for kind in (_APART, _JOINED, _OUT)
            )
            if (named or projects) and not any(_OTHER.search(rest) for rest in each[i:]):
                return True
        return False

    found = tuple(n for n, each in parts.items() if np.ndim(flat[n]) > 1 and belongs(each))
    if not found:
        raise ValueError(
            "attention_only: no leaf's name says that it is a matrix of attention; give a row of "
            "your own trainable=, a pattern of those that are. There are: " + ", ".join(parts)
        )
    return found


def attention(study: Study, task: str) -> list[str]:
    """The attention's matrices of a study's model, as a pattern."""
    return tree.exactly(leaves(study.model.params))


ATTENTION_ONLY = Method(
    "attention_only",
    "Attention-only",
    "displaced",
    partial(fine_tune, regime="nonlinear", method="attention_only", trainable=attention),
    about="Non-linear fine-tuning of the attention’s matrices, and of nothing else (Jin et al., "
    "ICLR 2025).",
)
"""Non-linear fine-tuning of the attention's matrices."""

ATTENTION_ONLY_POSTHOC = posthoc(ATTENTION_ONLY)
