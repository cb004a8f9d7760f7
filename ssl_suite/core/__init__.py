"""The contract every part keeps: Encoder, Method, Readout, Task, Finetune, DataModule, and what they share.

Nothing in here imports encoders, methods, tasks or data; they import this.
"""
