"""Methods that pretrain speech encoders."""
