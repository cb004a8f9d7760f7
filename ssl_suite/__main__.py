"""`python -m ssl_suite`."""

import sys

from ssl_suite.cli import main

sys.exit(main())
