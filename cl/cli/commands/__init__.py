"""One module a subcommand: the first docstring line is its help, ``main(argv) -> int`` runs it."""
