"""What all data modules share: sources, splits, targets."""
