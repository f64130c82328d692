"""What should be so. Pure: no clock, no input or output, no log."""
