"""`python -m service.cli` is `passbook`."""

from service.cli import main

main()
