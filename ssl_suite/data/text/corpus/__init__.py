"""Text to pretrain on: tokenised once into a file, and cut into rows or pairs of segments."""
