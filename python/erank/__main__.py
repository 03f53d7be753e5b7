"""The program itself: `python -m erank`, and the command `erank` of the installed package."""

import os
import sys

from ._server import program


def main():
    path = program()
    os.execv(path, [path, *sys.argv[1:]])


if __name__ == "__main__":
    main()
