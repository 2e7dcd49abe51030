"""``python -m linearize``: the console command where its script is not on the path."""

from linearize.command import main

if __name__ == "__main__":
    main()
