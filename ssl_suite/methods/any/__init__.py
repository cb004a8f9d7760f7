"""Methods that pretrain encoders of several modalities, and what they share."""
