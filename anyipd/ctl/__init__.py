"""anyipctl: what an operator asks and does by hand. Each subcommand is a file; none needs the daemon."""
