"""Reading and batching text, over one source (`source.py`): a folder, a table, tagged words, a sample or the hub.

`text.py` is what recipes name: for pretraining it serves a `corpus/` (token files, cut into blocks, pieces of documents
or pairs of segments), for a task labelled `sequences/` (sentences, pairs, tagged words, symbols, GLUE and CLUE).
`questions/` are read through windows over their contexts, `prompts/` and whole documents scored by likelihood alone.
"""
