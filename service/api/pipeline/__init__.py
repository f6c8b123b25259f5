"""What every request passes once."""
