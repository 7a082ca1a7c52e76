"""What URLs lead to."""
