"""Methods that pretrain text encoders."""
