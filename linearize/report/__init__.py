"""Tables, figures and the page of a run, made from its result files alone.

from linearize import report
report.write_all(run_dir)                     # -> run_dir/report.html
report.print_tables(report.load(run_dir))
"""

from linearize.report.results import Results as Results
from linearize.report.results import ResultsError as ResultsError
from linearize.report.results import load as load
from linearize.report.results import load_explorer as load_explorer
from linearize.report.results import parse as parse
from linearize.report.tables import all_tables as all_tables
from linearize.report.tables import print_tables as print_tables
from linearize.report.write import write_all as write_all
