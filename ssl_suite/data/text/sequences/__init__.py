"""Rows of text that are sequences of their own: sentences, pairs, lists of words with tags or phrases, symbols."""
