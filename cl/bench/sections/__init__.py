"""One module a section of the bench; each offers `rows(options)`."""
