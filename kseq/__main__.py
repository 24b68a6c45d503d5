"""`python -m kseq` is the `kseq` command."""

from kseq.cli import main

main()
