"""Weights of others: one engine, and a table of names for each family and each of its dialects."""

from linearize.models.hf.engine import export_leaves as export_leaves
from linearize.models.hf.engine import import_leaves as import_leaves
from linearize.models.hf.engine import untied as untied
from linearize.models.hf.sources import Source as Source
from linearize.models.hf.sources import read as read
from linearize.models.hf.table import Table as Table
