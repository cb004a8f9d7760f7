"""Small packs of real data, with sources, licences and hashes in MANIFEST.json; scripts/build_samples.py makes them."""
