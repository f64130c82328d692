"""The interface io.anyipd, by varlink (https://varlink.org): what the daemon publishes, and asking it."""
