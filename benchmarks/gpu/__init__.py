"""On a rented GPU: training within a time limit, and the job itself with its benchmarks."""

CONTENTS = "contents.json"
HELD_OUT, KNOWN_SCENES = "held_out.txt", "known_scenes.txt"
"""File names in a pack."""
