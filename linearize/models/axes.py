"""Logical names of the axes of a transformer's parameters, and sharding rules made from them."""

from collections.abc import Mapping

AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"attention/qkv/kernel$", ("embed", "heads")),
    (r"attention/qkv/bias$", ("heads",)),
    (r"attention/[qkv]/kernel$", ("embed", "heads")),
    (r"attention/[qkv]/bias$", ("heads",)),
    (r"attention/out/kernel$", ("heads", "embed")),
    (r"mlp_(in|gate|value)/kernel$", ("embed", "mlp")),
    (r"mlp_(in|gate|value)/bias$", ("mlp",)),
    (r"mlp_out/kernel$", ("mlp", "embed")),
    (r"patch_embedding/kernel$", ("pixels", "embed")),
    (r"projection/kernel$", ("embed", "features")),
    (r"token_embedding$", ("vocabulary", "embed")),
    (r"(position|type)_embedding$", ("positions", "embed")),
    (r"^head/kernel$", ("embed", "vocabulary")),
    (r"head_bias$", ("vocabulary",)),
    (r"head_transform/kernel$", ("embed", "features")),
    (r"head_transform/bias$", ("features",)),
    (r"pooler/kernel$", ("embed", "features")),
    (r"pooler/bias$", ("features",)),
    (r"relative_bias$", ("buckets", "heads")),
    (r"^positions$", ("positions", "positions", "embed")),
    (r"(bias|scale|class_token|class_position)$", ("embed",)),
)
"""The first pattern found in a leaf's name tells what its axes are. A scanned model's leaves have
``layers`` before them."""


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
    known = {axis for _, axes in AXES for axis in axes} | {"layers"}
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
    return ",".join(split.get(axis, "-") for axis in axes)
