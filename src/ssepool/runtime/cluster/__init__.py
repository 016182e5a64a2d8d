"""What the hubs of one broker tell and ask each other."""
