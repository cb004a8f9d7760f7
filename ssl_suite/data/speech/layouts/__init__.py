"""Official layouts of speech corpora: one file each, which makes rows of the folder and its lists."""
