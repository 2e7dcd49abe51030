"""``python -m linearize.report RUN_DIR``: makes a run's figures, tables and page anew."""

import sys

from linearize.report import ResultsError, load, print_tables, write_all

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m linearize.report RUN_DIR")
    try:
        path = write_all(sys.argv[1])
        print_tables(load(sys.argv[1]))
    except ResultsError as error:
        sys.exit(f"error: {error}")
    print(path)
