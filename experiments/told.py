"""What an analysis was told, in words for its page."""

from collections.abc import Mapping
from typing import Any


def examples(config: Mapping[str, Any], split: str) -> str:
    """Those of each task, in words, of a configuration as :class:`AnalysisConfig` has it.

    Args:
        config: as ``results.json`` has it.
        split: ``validation`` or ``test``.

    >>> examples({"test": 200, "data": {"test": 100}}, "test")
    'at most 100 test examples'
    >>> examples({"test": None, "data": {"test": None}}, "test")
    'all test examples'
    """
    limits = [most for most in (config.get(split), config["data"].get(split)) if most is not None]
    return f"{f'at most {min(limits)}' if limits else 'all'} {split} examples"


def normalizes(config: Mapping[str, Any]) -> bool:
    """Whether heads divide features by their norm, so that logits are not affine in these.

    >>> normalizes({"head": {"kind": "prototype", "normalize": True}})
    True
    >>> normalizes({"head": {"kind": "probe", "normalize": True}})  # which never does
    False
    """
    head = config["head"]
    return bool(head["kind"] != "probe" and head["normalize"])
