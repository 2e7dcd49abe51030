"""Logical names of the axes of a transformer's parameters, and sharding rules made from them."""

from collections.abc import Mapping

AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"attention/(q|k|v|qkv)/kernel$", ("embed", "heads")),
    (r"attention/(q|k|v|qkv)/bias$", ("heads",)),
    (r"attention/[qk]_norm/scale$", ("head_width",)),
    (r"attention/out/kernel$", ("heads", "embed")),
    (r"mlp_(in|gate|value)/kernel$", ("embed", "mlp")),
    (r"mlp_(in|gate|value)/bias$", ("mlp",)),
    (r"mlp_out/kernel$", ("mlp", "embed")),
    (r"(attention/out|mlp_out|patch_embedding)/bias$", ("embed",)),
    (r"(?<![^/])((pre|post|cross|embedding)_)?norm(_\d)?/(scale|bias)$", ("embed",)),
    (r"(?<![^/])scale_\d/scale$", ("embed",)),
    (r"patch_embedding/kernel$", ("pixels", "embed")),
    (r"projection/kernel$", ("embed", "features")),
    (r"token_embedding$", ("vocabulary", "embed")),
    (r"(position|type)_embedding$", ("positions", "embed")),
    (r"^positions$", ("...", "embed")),
    (r"^class_(token|position)$", ("embed",)),
    (r"^head/kernel$", ("embed", "vocabulary")),
    (r"^head_bias$", ("vocabulary",)),
    (r"(head_transform|pooler)/kernel$", ("embed", "features")),
    (r"((head_transform|pooler)/bias|head_norm/(scale|bias))$", ("features",)),
    (r"relative_bias$", ("buckets", "heads")),
)
"""What the axes of a leaf are, by a pattern that is found in its name; ``...`` stands for those
before, however many. No leaf's name has two of the patterns, so that a rule which is left out gives
its leaves to no other. A scanned model's leaves have ``layers`` before them."""


def sharding_rules(split: Mapping[str, str], *, scan: bool = False) -> tuple[tuple[str, str], ...]:
    """Rules for ``MeshConfig(rules=...)`` that split logical axes over the mesh's.

    Args:
        split: logical axis to mesh axis.
        scan: whether the model is layer-scanned.

    Raises:
        ValueError: no leaf has an axis of that name.

    >>> sharding_rules({"mlp": "model"})[0]
    ('mlp_(in|gate|value)/kernel$', '-,model')
    """
    known = {axis for _, axes in AXES for axis in axes if axis != "..."} | {"layers"}
    unknown = sorted(set(split) - known)
    if unknown:
        raise ValueError(f"split={dict(split)}: {', '.join(unknown)}; there are {sorted(known)}")
    rules = []
    for pattern, axes in AXES:
        if not any(axis in split for axis in ("layers", *axes)):
            continue
        if scan and not pattern.startswith("^"):
            rules.append((f"(^|/)blocks/.*{pattern}", _split(("layers", *axes), split)))
        if any(axis in split for axis in axes):
            rules.append((pattern, _split(axes, split)))
    return tuple(rules)


def _split(axes: tuple[str, ...], split: Mapping[str, str]) -> str:
    return ",".join(axis if axis == "..." else split.get(axis, "-") for axis in axes)
