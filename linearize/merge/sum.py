"""Addition (*Editing Models with Task Arithmetic*, §2)."""

from linearize.merge.merge import Merge

SUM = Merge(
    "sum",
    "Sum",
    lambda taus, seed: dict(taus),
    plain=True,
    about="The task vectors as they are, added (Ilharco et al., ICLR 2023).",
)
"""The task vectors as they are."""
