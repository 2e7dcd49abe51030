"""Tables, figures and the page of a run, made from its result files alone.

from linearize import report
report.write_all(run_dir)                     # -> run_dir/report.html
report.read_page(run_dir).print()
"""

import importlib
from typing import TYPE_CHECKING, Any

from linearize.report.node import ResultsError as ResultsError

if TYPE_CHECKING:
    from linearize.report.compare.logits import load_explorer as load_explorer
    from linearize.report.compare.results import Results as Results
    from linearize.report.compare.results import load as load
    from linearize.report.compare.results import parse as parse
    from linearize.report.compare.tables import all_tables as all_tables
    from linearize.report.write import read_page as read_page
    from linearize.report.write import write_all as write_all

_LATER = {
    **dict.fromkeys(("Results", "load", "parse"), "compare.results"),
    "load_explorer": "compare.logits",
    "all_tables": "compare.tables",
    **dict.fromkeys(("read_page", "write_all"), "write"),
}
"""By name, the module it is in: matplotlib is imported when a report is made, not before a run."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
