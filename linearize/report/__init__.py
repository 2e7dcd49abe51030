"""Tables, figures and the page of a run, made from its result files alone.

from linearize import report
report.write_all(run_dir)                     # -> run_dir/report.html
report.read_page(run_dir).print()
"""

from linearize.report.compare.results import Results as Results
from linearize.report.compare.results import load as load
from linearize.report.compare.results import load_explorer as load_explorer
from linearize.report.compare.results import parse as parse
from linearize.report.compare.tables import all_tables as all_tables
from linearize.report.node import ResultsError as ResultsError
from linearize.report.write import read_page as read_page
from linearize.report.write import write_all as write_all
