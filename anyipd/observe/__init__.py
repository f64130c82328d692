"""What is so: every file reads one kind of evidence, and none writes."""
