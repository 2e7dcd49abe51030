"""``python -m linearize.report RUN_DIR``: makes a run's figures, tables and page anew."""

import sys

from linearize.narration import forgive
from linearize.report import ResultsError, read_page, write_all

if __name__ == "__main__":
    forgive()
    if len(sys.argv) != 2:
        sys.exit("usage: python -m linearize.report RUN_DIR")
    try:
        path = write_all(sys.argv[1])
        read_page(sys.argv[1]).print()
    except (ResultsError, OSError) as error:
        sys.exit(f"error: {error}")
    print(path)
