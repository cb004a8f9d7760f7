"""Official layouts of proteins and DNA: one file each, which makes rows of the folder and its files."""
