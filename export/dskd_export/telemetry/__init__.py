"""What the machine is and does while a model runs."""
