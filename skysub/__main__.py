"""``python -m skysub``: the command line, where the script ``skysub`` is not on the path."""

from skysub.cli import main

raise SystemExit(main())
