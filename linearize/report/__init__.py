"""Tables, figures and the page of a run, made from its result files alone.

from linearize import report
report.write_all(run_dir)                     # -> run_dir/report.html
report.read_page(run_dir).print()
"""

from typing import TYPE_CHECKING

from linearize.later import offered
from linearize.report.node import ResultsError as ResultsError

if TYPE_CHECKING:
    from linearize.report.compare.logits import load_explorer as load_explorer
    from linearize.report.compare.results import Results as Results
    from linearize.report.compare.results import load as load
    from linearize.report.compare.results import parse as parse
    from linearize.report.compare.tables import all_tables as all_tables
    from linearize.report.drawn import read_page as read_page
    from linearize.report.drawn import write_all as write_all

__getattr__ = offered(
    __name__,
    {
        **dict.fromkeys(("Results", "load", "parse"), "compare.results"),
        "load_explorer": "compare.logits",
        "all_tables": "compare.tables",
        **dict.fromkeys(("read_page", "write_all"), "drawn"),
    },
)
