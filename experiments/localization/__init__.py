"""Eigenfunction localization: where the eigenfunctions that carry a target live, beside ξ."""
