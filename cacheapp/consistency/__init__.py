"""What was seen, and whether it can be explained: pure, without clock, disk or threads."""
