"""One file per strategy; found by walking this folder."""
