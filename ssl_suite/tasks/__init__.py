"""Tasks: what an encoder is judged by. They read features, never inputs, and know no modality."""
