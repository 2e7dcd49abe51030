"""Addition (*Editing Models with Task Arithmetic*, §2)."""

from linearize.merge.merge import Merge

SUM = Merge("sum", "Sum", lambda taus, seed: dict(taus), plain=True)
"""The task vectors as they are."""
