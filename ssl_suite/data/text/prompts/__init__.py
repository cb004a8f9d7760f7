"""What a language model answers or scores as it is: rows as prompts, and whole documents."""
