"""`python -m onmodel`: the command line."""

from onmodel.cli.main import main

main()
