"""Kernel behaviour against width: one network at many widths, beside its infinite-width kernels."""
