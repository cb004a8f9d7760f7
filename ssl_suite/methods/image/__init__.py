"""Methods that pretrain image encoders."""
